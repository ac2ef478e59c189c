/** A chat as every API asks for it in the end: what differs between them is only how it is written. */
import type { LogitsProcessorOptions, SamplerOptions } from "../sample";
import type { AnswerFormat } from "../sample/grammar/formats";
import type { ChatMessage } from "../text/chat-template";
import { invalid } from "./api-error";
import { checkGeneration, encodeChat, type Generation } from "./generation";
import type { ServedModel } from "./models/served-model";
import { turnEnds } from "./prefixes/turn-ends";
import type { RequestDefaults } from "./settings";
import { thinkingBudget } from "./thinking-budget";

/** A function on offer, as OpenAI's API describes it: chat templates read this form. */
export interface Tool {
  type: "function";
  function: { name: string; description?: string; parameters?: unknown };
}

export interface Chat {
  messages: ChatMessage[];
  tools?: readonly Tool[];
  /** Variables of the template. */
  templateVariables?: Record<string, unknown>;
  /** What stands before each role's text, for a model without a template. */
  roleMapping?: Readonly<Record<string, string>>;
  maxTokens: number;
  sampling: SamplerOptions;
  penalties?: LogitsProcessorOptions;
  seed?: number;
  stop?: readonly string[];
  logprobs?: number;
  /** The form that the answer must have. */
  form?: AnswerFormat;
  /** Tokens of prompt and answer together, at most, where that is less than the model takes. */
  contextLimit?: number;
  /** Tokens of a thought, at most. */
  thinkingBudget?: number;
  /** One call of a tool is enough: the answer ends behind it. */
  isSingle?: boolean;
}

/** @throws ApiError for what the template refuses, and for what does not fit */
export async function prepareChat(
  served: ServedModel,
  chat: Chat,
  defaults: RequestDefaults,
  count = 1,
): Promise<Generation> {
  const { messages, tools, templateVariables, roleMapping, thinkingBudget: budget, ...rest } = chat;
  const offered = tools && tools.length > 0 ? tools : null;
  const kwargs = { ...defaults.templateVariables, ...templateVariables };
  for (const name of reserved) {
    if (Object.hasOwn(kwargs, name)) {
      throw invalid(`"${name}" can't be a variable of the chat template here`, `chat_template_kwargs.${name}`);
    }
  }
  const written = messages.map(forTemplate);
  const options = { tools: offered?.slice() ?? null, kwargs };
  const prompt = await encodeChat(served, written, { ...options, roleMapping });
  const { tokenizer } = served;
  const keeps = tokenizer.hasChatTemplate && served.scheduler.isBatched && !served.forgetsAnywhere;
  const boundaries = keeps ? await turnEnds(tokenizer, written, prompt, options) : undefined;
  const { thinking } = tokenizer;
  const limits = budget !== undefined && thinking ? [thinkingBudget(budget, thinking)] : [];
  const generation = { ...rest, prompt, tools: offered, takesApart: true, limits, boundaries };
  checkGeneration(served, generation, count);
  return generation;
}

/** What the server gives the template itself. */
const reserved = ["messages", "tools", "add_generation_prompt"];

/** A message as templates read it: its instructions are the system's, and what a call is given is an object. */
function forTemplate(message: ChatMessage): ChatMessage {
  const role = message.role === "developer" ? "system" : message.role;
  const { tool_calls: calls } = message;
  if (!Array.isArray(calls)) return { ...message, role };
  return { ...message, role, tool_calls: calls.map(withObject) };
}

function withObject(call: unknown): unknown {
  const { function: called, ...rest } = (call ?? {}) as { function?: { arguments?: unknown } };
  if (typeof called?.arguments !== "string") return call;
  try {
    return { ...rest, function: { ...called, arguments: JSON.parse(called.arguments || "{}") } };
  } catch {
    return call;
  }
}

/** Whether the model is to think before it answers, as templates ask: by several names. */
export function thinkingVariables(thinks: boolean): Record<string, unknown> {
  return { enable_thinking: thinks, thinking: thinks };
}
