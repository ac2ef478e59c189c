/** A request of /v1/responses: its fields and items, and what they ask for. */
import { z } from "zod";
import type { ChatMessage } from "../../../text/chat-template";
import { invalid } from "../../api-error";
import type { Chat, Tool } from "../../chat";
import { samplerOptions } from "../../fields";
import { type Picture, pictureMark, pictureOfUrl } from "../../pictures";
import type { RequestDefaults } from "../../settings";
import { type FormWish, strictCalls } from "../../structured";
import { efforts, effortVariables } from "../openai/chat-request";

const itemFields = { id: z.string().nullish(), status: z.string().nullish() };

const textPart = z.strictObject({
  type: z.enum(["input_text", "output_text", "text"]),
  text: z.string(),
  annotations: z.array(z.unknown()).optional(),
  logprobs: z.array(z.unknown()).nullish(),
});

const content = z.union([z.string(), z.array(textPart)]);

const picturePart = z.strictObject({
  type: z.literal("input_image"),
  image_url: z.string(),
  detail: z.literal("auto").nullish(),
});

const messageItem = z.strictObject({
  ...itemFields,
  type: z.literal("message").optional(),
  role: z.enum(["user", "assistant", "system", "developer"]),
  content: z.union([z.string(), z.array(z.union([textPart, picturePart]))]),
  phase: z.string().nullish(),
});

const callItem = z.strictObject({
  ...itemFields,
  type: z.literal("function_call"),
  call_id: z.string(),
  name: z.string(),
  namespace: z.string().nullish(),
  arguments: z.string(),
});

const outputItem = z.strictObject({
  ...itemFields,
  type: z.literal("function_call_output"),
  call_id: z.string(),
  output: content,
});

const reasoningItem = z.strictObject({
  ...itemFields,
  type: z.literal("reasoning"),
  summary: z.array(z.strictObject({ type: z.literal("summary_text"), text: z.string() })).optional(),
  content: z.array(z.strictObject({ type: z.literal("reasoning_text"), text: z.string() })).nullish(),
  encrypted_content: z.string().nullish(),
});

const item = z.union([messageItem, callItem, outputItem, reasoningItem]);

export type Item = z.infer<typeof item>;

const functionTool = z.strictObject({
  type: z.literal("function"),
  name: z.string().min(1).max(256),
  description: z.string().nullish(),
  parameters: z.looseObject({}).nullish(),
  strict: z.boolean().nullish(),
});

/** Functions that a client keeps apart: the model is offered them like any others. */
const namespace = z.strictObject({
  type: z.literal("namespace"),
  name: z.string().min(1).max(256),
  description: z.string().nullish(),
  tools: z.array(functionTool).max(1024),
});

const tool = z.discriminatedUnion("type", [functionTool, namespace]);

const format = z.union([
  z.strictObject({ type: z.literal("text") }),
  z.strictObject({ type: z.literal("json_object") }),
  z.strictObject({
    type: z.literal("json_schema"),
    name: z.string().optional(),
    description: z.string().nullish(),
    schema: z.looseObject({}),
    strict: z.boolean().nullish(),
  }),
]);

const includable = ["reasoning.encrypted_content", "message.output_text.logprobs"] as const;

export const ResponsesRequest = z.strictObject({
  model: z.string().max(1000).optional(),
  input: z.union([z.string(), z.array(item).min(1)]),
  instructions: z.string().optional(),
  stream: z.boolean().optional(),
  max_output_tokens: z.int().min(1).max(1e9).optional(),
  temperature: z.number().min(0).max(100).optional(),
  top_p: z.number().min(0).max(1).optional(),
  top_logprobs: z.int().min(0).max(20).optional(),
  tools: z.array(tool).max(1024).optional(),
  tool_choice: z
    .union([z.enum(["none", "auto", "required"]), z.strictObject({ type: z.literal("function"), name: z.string() })])
    .optional(),
  parallel_tool_calls: z.boolean().optional(),
  previous_response_id: z.string().optional(),
  store: z.boolean().optional(),
  reasoning: z
    .strictObject({
      effort: z.enum(efforts).nullish(),
      /** Thoughts come whole: there is nothing to sum up. */
      summary: z.enum(["auto", "concise", "detailed", "none"]).nullish(),
    })
    .optional(),
  text: z.strictObject({ format: format.optional() }).optional(),
  include: z.array(z.enum(includable)).optional(),
  truncation: z.literal("disabled").optional(),
  background: z.literal(false).optional(),
  service_tier: z.enum(["auto", "default"]).optional(),
  metadata: z.record(z.string(), z.string()).optional(),
  /** Hints and names: prompts are kept by what they say, and who asks is for the log. */
  prompt_cache_key: z.string().optional(),
  safety_identifier: z.string().optional(),
  user: z.string().optional(),
  client_metadata: z.record(z.string(), z.unknown()).optional(),
});

export type ResponsesRequest = z.infer<typeof ResponsesRequest>;

/** The items that a request adds to the conversation. */
export function itemsOf({ input }: Pick<ResponsesRequest, "input">): Item[] {
  return typeof input === "string" ? [{ type: "message", role: "user", content: input }] : input;
}

/** @param items all of the conversation, the earlier ones too */
export function chatOf(request: ResponsesRequest, items: readonly Item[], defaults: RequestDefaults): Chat {
  const { instructions, tool_choice: choice, tools, reasoning, include = [] } = request;
  const withLogprobs = request.top_logprobs !== undefined || include.includes("message.output_text.logprobs");
  const pictures: Picture[] = [];
  const messages = messagesOf(items, pictures);
  return {
    messages: [...(instructions ? [{ role: "system", content: instructions }] : []), ...messages],
    pictures,
    tools: choice === "none" || !tools ? undefined : functionsOf(tools).map(toolOf),
    templateVariables: reasoning?.effort ? effortVariables(reasoning.effort) : {},
    // This API's answers have no limit unless one is set.
    maxTokens: request.max_output_tokens ?? -1,
    sampling: samplerOptions(request, defaults),
    logprobs: withLogprobs ? (request.top_logprobs ?? 0) : undefined,
    isSingle: request.parallel_tool_calls === false,
  };
}

/** All functions, those of namespaces too. */
const functionsOf = (tools: readonly z.infer<typeof tool>[]) =>
  tools.flatMap((one) => (one.type === "namespace" ? one.tools : one));

/** The namespace of a function, by its name. */
export function namespaceOf({ tools = [] }: Pick<ResponsesRequest, "tools">, name: string): string | undefined {
  for (const one of tools) {
    if (one.type === "namespace" && one.tools.some((inner) => inner.name === name)) return one.name;
  }
  return undefined;
}

function toolOf({ name, description, parameters }: z.infer<typeof functionTool>): Tool {
  return {
    type: "function",
    function: { name, ...(description && { description }), ...(parameters && { parameters }) },
  };
}

/** Thoughts, text and calls are items of their own here, and one message for a template. */
function messagesOf(items: readonly Item[], pictures: Picture[]): ChatMessage[] {
  const messages: ChatMessage[] = [];
  let open: ChatMessage | null = null;
  const assistant = () => {
    if (!open) {
      open = { role: "assistant", content: "" };
      messages.push(open);
    }
    return open;
  };
  for (const item of items) {
    if (item.type === "reasoning") assistant().reasoning_content = thoughtsIn(item);
    else if (item.type === "function_call") {
      const { call_id: id, name, arguments: args } = item;
      const message = assistant();
      message.tool_calls = [
        ...((message.tool_calls as unknown[]) ?? []),
        { id, type: "function", function: { name, arguments: args } },
      ];
    } else if (item.type === "function_call_output") {
      open = null;
      messages.push({ role: "tool", tool_call_id: item.call_id, content: textIn(item.output) });
    } else if (item.role === "assistant") {
      const message = assistant();
      message.content = `${message.content as string}${saidIn(item, pictures)}`;
    } else {
      open = null;
      messages.push({ role: item.role, content: saidIn(item, pictures) });
    }
  }
  return messages;
}

const textIn = (given: z.infer<typeof content>) =>
  typeof given === "string" ? given : given.map(({ text }) => text).join("");

/** The text of a message. A mark stands for each picture. */
function saidIn({ role, content }: z.infer<typeof messageItem>, pictures: Picture[]): string {
  if (typeof content === "string") return content;
  return content
    .map((part) => {
      if (part.type !== "input_image") return part.text;
      if (role !== "user") throw invalid("pictures are the user's", "input");
      pictures.push(pictureOfUrl(part.image_url, "input"));
      return pictureMark;
    })
    .join("");
}

function thoughtsIn({ content, encrypted_content, summary = [] }: z.infer<typeof reasoningItem>): string {
  if (content && content.length > 0) return content.map(({ text }) => text).join("");
  if (encrypted_content) return unpacked(encrypted_content);
  return summary.map(({ text }) => text).join("\n");
}

/** A thought as a client keeps it that is given none in words. It is packed, not secret: it is the client's own. */
export const packed = (thought: string) => Buffer.from(thought).toString("base64");

const unpacked = (text: string) => Buffer.from(text, "base64").toString();

export function formWish(request: ResponsesRequest): FormWish | undefined {
  const { text, tool_choice: choice, tools = [] } = request;
  const isCalled = choice === "required" || typeof choice === "object";
  const offered = functionsOf(tools).map((one) => ({ tool: toolOf(one), isStrict: one.strict === true }));
  const strict =
    isCalled || choice === "none" ? undefined : strictCalls(offered, request.parallel_tool_calls !== false);
  const wished = text?.format;
  if (wished && wished.type !== "text") {
    if (isCalled) throw invalid('"text.format" and "tool_choice" do not go together', "tool_choice");
    if (strict) throw invalid('"text.format" and strict "tools" do not go together', "tools");
    if (wished.type === "json_object") return { param: "text.format", form: { type: "json_object" } };
    return { param: "text.format", form: { type: "json_schema", schema: wished.schema } };
  }
  if (!isCalled) return strict;
  const callable = functionsOf(tools)
    .filter(({ name }) => choice === "required" || name === choice.name)
    .map(toolOf);
  if (callable.length === 0) throw invalid('"tool_choice" names no tool on offer', "tool_choice");
  return { param: "tool_choice", form: { type: "call", tools: callable } };
}
