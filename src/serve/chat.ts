/** A chat as every API asks for it in the end: what differs between them is only how it is written. */
import type { PromptImages } from "../generate/images";
import type { LogitsProcessorOptions, SamplerOptions } from "../sample";
import type { AnswerFormat } from "../sample/grammar/formats";
import type { ChatMessage } from "../text/chat-template";
import { invalid } from "./api-error";
import { checkGeneration, encodeChat, type Generation } from "./generation";
import type { ServedModel } from "./models/served-model";
import { type Picture, seen, withPlaces } from "./pictures";
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
  /** In the order of their marks in the messages. */
  pictures?: readonly Picture[];
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

/** A chat as the model reads it. */
interface WrittenChat {
  prompt: number[];
  images: PromptImages | null;
  /** As the template gets it. */
  messages: ChatMessage[];
  options: { tools: Tool[] | null; kwargs: Record<string, unknown> };
}

type Asked = Pick<Chat, "messages" | "pictures" | "tools" | "templateVariables" | "roleMapping">;

/** @throws ApiError for what the template refuses, and for pictures that cannot be seen */
export async function writeChat(served: ServedModel, chat: Asked, defaults: RequestDefaults): Promise<WrittenChat> {
  const { pictures = [], tools, templateVariables, roleMapping } = chat;
  const kwargs = { ...defaults.templateVariables, ...templateVariables };
  for (const name of reserved) {
    if (Object.hasOwn(kwargs, name)) {
      throw invalid(`"${name}" can't be a variable of the chat template here`, `chat_template_kwargs.${name}`);
    }
  }
  const images = await seen(served, pictures);
  const plain = chat.messages.map(forTemplate);
  const messages = images ? withPlaces(plain, images.placeholder) : plain;
  const options = { tools: tools && tools.length > 0 ? tools.slice() : null, kwargs };
  const rewrite = images?.written;
  return {
    prompt: await encodeChat(served, messages, { ...options, roleMapping, rewrite }),
    images,
    messages,
    options,
  };
}

/** @throws ApiError for what the template refuses, and for what does not fit */
export async function prepareChat(
  served: ServedModel,
  chat: Chat,
  defaults: RequestDefaults,
  count = 1,
): Promise<Generation> {
  const { messages: _, pictures, tools, templateVariables, roleMapping, thinkingBudget: budget, ...rest } = chat;
  const { prompt, images, messages, options } = await writeChat(served, chat, defaults);
  const { tokenizer } = served;
  const keeps = tokenizer.hasChatTemplate && served.scheduler.isBatched && !served.forgetsAnywhere && !images;
  const boundaries = keeps ? await turnEnds(tokenizer, messages, prompt, options) : undefined;
  const { thinking } = tokenizer;
  const limits = budget !== undefined && thinking ? [thinkingBudget(budget, thinking)] : [];
  const generation = { ...rest, prompt, images, tools: options.tools, takesApart: true, limits, boundaries };
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
