/** What every API asks of a model in the end, and how it is answered. */
import { UserError } from "../errors";
import { answer, type End, type Part } from "../generate/answer";
import { constrain } from "../generate/constrain";
import type { PromptImages } from "../generate/images";
import { checkContext } from "../generate/prompt";
import type { Tensor } from "../mlx";
import type { Cache } from "../models";
import {
  type LogitsProcessor,
  type LogitsProcessorOptions,
  makeLogitsProcessors,
  type SamplerOptions,
} from "../sample";
import type { AnswerFormat } from "../sample/grammar/formats";
import type { ChatMessage, ChatOptions } from "../text/chat-template";
import { invalid } from "./api-error";
import type { ServedAdapter } from "./models/served-adapters";
import type { ServedModel } from "./models/served-model";

export interface Generation {
  prompt: readonly number[];
  /** Pictures in the prompt: it is then answered beside the batch. */
  images?: PromptImages | null;
  /** -1: as many as fit. */
  maxTokens: number;
  /** Tokens of prompt and answer together, at most, where that is less than the model takes. */
  contextLimit?: number;
  sampling: SamplerOptions;
  penalties?: LogitsProcessorOptions;
  seed?: number;
  stop?: readonly string[];
  /** How many likely tokens to tell beside each; absent: no log-probabilities. */
  logprobs?: number;
  /** The tools on offer. */
  tools?: readonly unknown[] | null;
  /** Take thoughts and calls out of the text. */
  takesApart: boolean;
  /** Places in the prompt that later prompts may begin with, for a model that cannot forget back to them. */
  boundaries?: readonly number[];
  /** The form that the answer must have. */
  form?: AnswerFormat;
  /** Further processors of this answer alone. */
  limits?: readonly LogitsProcessor[];
  /** One call of a tool is enough: the answer ends behind it. */
  isSingle?: boolean;
  /** Tell of calls while they are written. */
  callPieces?: boolean;
}

export type { End, Part };

export interface GenerateOptions {
  signal: AbortSignal;
  /** Of the model's adapters. */
  adapter?: ServedAdapter | null;
  /** Called as the prompt is read. */
  onPrefill?: (done: number, total: number) => void;
}

export interface EncodeChatOptions extends Pick<ChatOptions, "tools" | "kwargs"> {
  /** For a model without a template. */
  roleMapping?: Readonly<Record<string, string>>;
  /** What becomes of the whole text ahead of the tokenizer. */
  rewrite?: (text: string) => string;
}

/** Token ids of a chat. @throws ApiError for what the template refuses */
export async function encodeChat(
  { tokenizer }: ServedModel,
  messages: ChatMessage[],
  { roleMapping, rewrite, ...options }: EncodeChatOptions = {},
): Promise<number[]> {
  if (!tokenizer.hasChatTemplate) {
    const text = prefixed(messages, roleMapping ?? usualRoles);
    return tokenizer.encode(rewrite ? rewrite(text) : text);
  }
  if (roleMapping)
    throw invalid('"role_mapping" is for models without a chat template: this one has one', "role_mapping");
  if (messages.length === 0) throw invalid("there must be a message", "messages");
  const last = messages.at(-1)!;
  // An answer that has begun is gone on with.
  const isOpen = last.role === "assistant" && typeof last.content === "string" && !last.tool_calls;
  const how = isOpen ? { continueFinalMessage: true } : { addGenerationPrompt: true };
  try {
    if (!rewrite) return await tokenizer.encodeChat(messages, { ...how, ...options });
    const text = tokenizer.applyChatTemplate(messages, { ...how, ...options });
    return await tokenizer.encode(rewrite(text), { addSpecialTokens: false });
  } catch (error) {
    if (error instanceof UserError) throw invalid(error.message, "messages");
    throw error;
  }
}

/** What stands before each role's text for a model without a template, and behind it; mlx-lm's. */
const usualRoles = { system: "ASSISTANT's RULE: ", user: "USER: ", assistant: "ASSISTANT: ", stop: "\n" };

function prefixed(messages: readonly ChatMessage[], roles: Readonly<Record<string, string>>): string {
  const prefix = (name: string) => (Object.hasOwn(roles, name) ? roles[name]! : "");
  const lines = messages.map(({ role, content }) => `${prefix(role)}${content ?? ""}${prefix("stop")}`);
  return `${lines.join("")}${prefix("assistant")}`.trimEnd();
}

/**
 * Looks at all that can be wrong with a request before it begins, while it can still be answered with a status.
 * @throws ApiError or UserError
 */
export function checkGeneration(served: ServedModel, generation: Generation, count = 1): void {
  const { prompt, penalties } = generation;
  if (prompt.length === 0) throw invalid("the prompt is empty", "prompt");
  checkContext(prompt.length, contextOf(served, generation));
  makeLogitsProcessors(penalties);
  const foreign = biasOutside(penalties, served.model.vocabSize);
  if (foreign !== undefined)
    throw invalid(`"logit_bias" names token ${foreign}, which the model does not know`, "logit_bias");
  served.scheduler.check(prompt.length, roomFor(served, generation), count);
}

function biasOutside({ logitBias = {} }: LogitsProcessorOptions = {}, vocabSize: number): string | undefined {
  return Object.keys(logitBias).find((id) => !/^\d+$/.test(id) || Number(id) >= vocabSize);
}

function contextOf({ contextLength }: ServedModel, { contextLimit }: Generation): number | null {
  const known = [contextLength, contextLimit].filter((one) => typeof one === "number");
  return known.length === 0 ? null : Math.min(...known);
}

/** How many tokens an answer may have: those that were asked for, as far as the context goes. */
function roomFor(served: ServedModel, generation: Generation): number {
  const { prompt, maxTokens } = generation;
  const context = contextOf(served, generation);
  if (context === null) return maxTokens;
  const room = Math.max(1, context - prompt.length);
  return maxTokens < 0 ? room : Math.min(maxTokens, room);
}

/** Waits for a place, and answers. Where the caller leaves, or the signal aborts, the place is free by the next step. */
export async function* generate(
  served: ServedModel,
  generation: Generation,
  { signal, adapter, onPrefill }: GenerateOptions,
): AsyncGenerator<Part | End, void, void> {
  const { scheduler, tokenizer } = served;
  const { prompt, images, sampling, penalties, form, limits = [] } = generation;
  // The same tokens may stand for other pictures.
  const prefixes = images ? undefined : (adapter ?? served).prefixes;
  const maxTokens = roomFor(served, generation);
  const sampler = await served.sampler(sampling);
  const own = new OwnEnd(signal);
  let hasCalled = false;
  const place = await scheduler.enter(prompt.length, maxTokens, signal);
  let inputEmbeddings: Tensor | undefined;
  try {
    if (!signal.aborted) inputEmbeddings = images?.embed(prompt);
    const { tools, takesApart: takeApart } = generation;
    const held = { tokenizer, vocabularySize: served.model.vocabSize, prompt, tools, takeApart };
    const request = {
      ...{ prompt, maxTokens, sampler, tools, takeApart, callPieces: generation.callPieces },
      ...{ adapter: adapter?.pooled, inputEmbeddings },
      constraint: form ? await constrain(form, held) : null,
      form: form && { format: form, tools, takeApart },
      seed: generation.seed,
      stopTexts: generation.stop,
      stopsInThoughts: false,
      logprobs: generation.logprobs,
      logitsProcessors: [...makeLogitsProcessors(penalties), ...limits].map((one) => own.guarded(one)),
      boundaries: generation.boundaries,
      onBoundary: prefixes && ((cache: Cache[], tokens: readonly number[]) => prefixes.put(cache, tokens)),
      onPrefill: (done: number, total: number) => {
        scheduler.beat();
        onPrefill?.(done, total);
      },
      signal: own.signal,
    };
    const stepper = images ? scheduler.lone : scheduler.stepper;
    for await (const part of answer(request, { stepper, tokenizer, prefixes })) {
      scheduler.beat();
      own.check();
      if (part.type === "end") yield hasCalled ? { ...part, finish_reason: "tool_calls" } : part;
      else if (generation.isSingle && part.type === "call_pieces") {
        if (!hasCalled) yield { ...part, pieces: part.pieces.filter(({ index }) => index === 0) };
      } else if (generation.isSingle && part.type === "tool_calls" && !hasCalled) {
        hasCalled = true;
        yield { ...part, calls: part.calls.slice(0, 1) };
        own.end();
      } else if (!hasCalled) yield part;
    }
  } finally {
    inputEmbeddings?.dispose();
    images?.dispose();
    place.leave();
    own.dispose();
  }
}

/** An answer that ends by itself: a logits processor that fails ends its own, and the others in the batch go on. */
class OwnEnd {
  readonly #controller = new AbortController();
  readonly #abort = () => this.#controller.abort();
  #failure: { error: unknown } | null = null;

  constructor(private readonly outer: AbortSignal) {
    if (outer.aborted) this.#abort();
    outer.addEventListener("abort", this.#abort);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  guarded(process: LogitsProcessor): LogitsProcessor {
    return (tokens, logits) => {
      if (this.#failure) return logits;
      try {
        return process(tokens, logits);
      } catch (error) {
        this.#failure = { error };
        this.#abort();
        return logits;
      }
    };
  }

  end(): void {
    this.#abort();
  }

  /** @throws what a processor threw */
  check(): void {
    if (this.#failure) throw this.#failure.error;
  }

  dispose(): void {
    this.outer.removeEventListener("abort", this.#abort);
  }
}
