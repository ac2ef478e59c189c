/** DeepSeek V3.2's prompts, which no Jinja template writes: the model's own format, with its markup for tools. */
import type { ChatMessage, ChatOptions } from "./chat-template";
import { parseJson } from "./tools/json";
import { dumps, isMapping, ofJson } from "./tools/value";

const [BOS, EOS] = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"];
const [USER, ASSISTANT] = ["<｜User｜>", "<｜Assistant｜>"];
const [THINK, END_THINK] = ["<think>", "</think>"];
const DSML = "｜DSML｜";

/** What the model was trained to read, to the letter. */
const TOOLS_INTRODUCTION = `## Tools

You have access to a set of tools you can use to answer the user's question.
You can invoke functions by writing a "<${DSML}function_calls>" block like the following as part of your reply to the user:
<${DSML}function_calls>
<${DSML}invoke name="$FUNCTION_NAME">
<${DSML}parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</${DSML}parameter>
...
</${DSML}invoke>
<${DSML}invoke name="$FUNCTION_NAME2">
...
</${DSML}invoke>
</${DSML}function_calls>

String and scalar parameters should be specified as is without any escaping or quotes, while lists and objects should use JSON format. The "string" attribute should be set to "true" for string type parameters and "false" for other types (numbers, booleans, arrays, objects).

If the thinking_mode is enabled, then after function results you should strongly consider outputting a thinking block. Here is an example:

<${DSML}function_calls>
...
</${DSML}function_calls>

<function_results>
...
</function_results>

${THINK}...thinking about results${END_THINK}

Here are the functions available in JSONSchema format:
<functions>
`;

interface FunctionCall {
  name?: string;
  arguments?: unknown;
}

/** What the messages lack for this format; the caller names the model. */
export class Unfit extends Error {}

/**
 * The prompt of a chat. Thoughts before the last question are left out where the model is to think.
 * @throws Unfit for messages that the format has no place for.
 */
export function renderDeepseekV32(messages: readonly ChatMessage[], options: ChatOptions = {}): string {
  const { addGenerationPrompt, continueFinalMessage, tools, kwargs = {} } = options;
  if (addGenerationPrompt && continueFinalMessage) throw new Unfit("a prompt can't continue a message and open one");
  const thinks = Boolean(kwargs.enable_thinking);
  const chat = new Chat(messages, thinks, tools ?? null);
  const text = BOS + messages.map((_, index) => chat.render(index)).join("");

  const last = messages.at(-1)?.role;
  const opening = ASSISTANT + THINK;
  if (!addGenerationPrompt && last === "user" && text.endsWith(opening)) return text.slice(0, -opening.length);
  return continueFinalMessage && last === "assistant" && text.endsWith(EOS) ? text.slice(0, -EOS.length) : text;
}

class Chat {
  readonly #lastQuestion: number;

  constructor(
    private readonly messages: readonly ChatMessage[],
    private readonly thinks: boolean,
    private readonly tools: readonly unknown[] | null,
  ) {
    this.#lastQuestion = messages.findLastIndex(({ role }) => role === "user" || role === "developer");
  }

  render(index: number): string {
    const message = this.messages[index]!;
    switch (message.role) {
      case "system":
        return textOf(message) + this.#abilities(message);
      case "developer": {
        const text = textOf(message);
        if (text === "") throw new Unfit("a developer's message is empty");
        return `${USER}${this.#abilities(message)}\n\n# The user's message is: ${text}${ASSISTANT}${this.#thought(index)}`;
      }
      case "user":
        return `${USER}${textOf(message)}${ASSISTANT}${this.#thought(index)}`;
      case "tool":
        return this.#result(index);
      case "assistant":
        return this.#answer(index);
      default:
        throw new Unfit(`there is no role "${message.role}"`);
    }
  }

  /** Tools and the form of the answer, which a message of the system or the developer introduces. */
  #abilities(message: ChatMessage): string {
    const given = Array.isArray(message.tools) ? message.tools : [];
    const tools = this.tools && this.tools.length > 0 ? this.tools : given;
    const schemas = tools.map((tool) => dumps(ofJson((tool as { function?: unknown })?.function)));
    const described = schemas.length > 0 ? `\n\n${TOOLS_INTRODUCTION}${schemas.join("\n")}\n</functions>\n` : "";
    const form = message.response_format;
    if (!form) return described;
    const schema = dumps(ofJson(form));
    return `${described}\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n${schema}`;
  }

  /** How the answer to a message begins: in a thought, or behind none. */
  #thought(index: number): string {
    return this.thinks && index === this.#lastQuestion ? THINK : END_THINK;
  }

  #result(index: number): string {
    const asked = this.messages.findLastIndex(({ role }, at) => at < index && role !== "tool");
    const asks = asked < 0 ? [] : callsOf(this.messages[asked]!);
    const order = index - asked;
    if (this.messages[asked]?.role !== "assistant" || asks.length < order) {
      throw new Unfit("a tool's result stands where no tool was called");
    }
    const opening = order === 1 ? "\n\n<function_results>" : "";
    const result = `${opening}\n<result>${textOf(this.messages[index]!)}</result>`;
    if (order < asks.length) return result;
    const thought = this.thinks && index >= this.#lastQuestion ? THINK : END_THINK;
    return `${result}\n</function_results>\n\n${thought}`;
  }

  #answer(index: number): string {
    const message = this.messages[index]!;
    const calls = callsOf(message).map(renderCall);
    const called = calls.length > 0 ? `\n\n<${DSML}function_calls>\n${calls.join("\n")}\n</${DSML}function_calls>` : "";
    const text = `${textOf(message)}${called}${EOS}`;
    if (!this.thinks || index <= this.#lastQuestion) return text;
    const reasoning = typeof message.reasoning_content === "string" ? message.reasoning_content : "";
    if (reasoning === "" && calls.length === 0) {
      throw new Unfit("the answer to the last question has neither reasoning_content nor tool_calls");
    }
    return reasoning + END_THINK + text;
  }
}

function renderCall({ name, arguments: given }: FunctionCall): string {
  // APIs send the arguments as JSON text, and other templates want them as an object.
  const args = typeof given === "string" ? parseJson(given) : ofJson(given ?? {});
  if (!isMapping(args)) throw new Unfit(`the arguments of the call of ${name} are not a JSON object`);
  const parameters = [...args].map(([key, value]) => {
    const isText = typeof value === "string";
    return `<${DSML}parameter name="${key}" string="${isText}">${isText ? value : dumps(value)}</${DSML}parameter>`;
  });
  return `<${DSML}invoke name="${name}">\n${parameters.join("\n")}\n</${DSML}invoke>`;
}

function callsOf(message: ChatMessage): FunctionCall[] {
  const calls = Array.isArray(message.tool_calls) ? message.tool_calls : [];
  return calls.map((call) => (call as { function?: FunctionCall } | null)?.function ?? {});
}

function textOf({ role, content }: ChatMessage): string {
  if (content === undefined || content === null) return "";
  if (typeof content === "string") return content;
  if (content.some(({ text }) => typeof text !== "string"))
    throw new Unfit(`a message of the ${role} is not text alone`);
  return content.map(({ text }) => text).join("");
}
