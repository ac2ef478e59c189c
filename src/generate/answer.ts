/** Answers: from a prompt to text, thoughts and tool calls as they come, and figures at the end. */
import { ExitCode, UserError } from "../errors";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { Cache } from "../models";
import {
  greedy,
  type LogitsProcessor,
  makeSampler,
  type Sampler,
  type SamplerOptions,
  type SeededSampler,
  seeded,
} from "../sample";
import type { Constraint } from "../sample/grammar/constraint";
import type { ChatMessage, ChatOptions } from "../text/chat-template";
import type { Tokenizer } from "../text/tokenizer";
import type { PooledAdapter } from "../tune/adapter-pool";
import { AnswerText, type TextOptions, type TextPart } from "./answer-text";
import type { HeldForm } from "./constrain";
import type { Loan, Prefixes } from "./prefix-store";
import type { Stepper } from "./stepper";

export interface AnswerRequest extends TextOptions {
  /** Token ids, or messages for the chat template. */
  prompt: readonly number[] | { messages: ChatMessage[]; options?: ChatOptions };
  /** How many tokens; -1: no limit. */
  maxTokens?: number;
  /** How tokens are drawn: greedily where nothing is said. Requests that share a function are drawn together in a batch. */
  sampler?: SamplerOptions | Sampler;
  /**
   * Seed of random numbers that this answer alone draws: the same text whatever is answered beside it. Without one it
   * draws from the process's random numbers.
   */
  seed?: number;
  logitsProcessors?: readonly LogitsProcessor[];
  /** Holds the answer to a grammar. The answer takes it over. */
  constraint?: Constraint | null;
  /** What the constraint was made of: needed where other processes make the same steps. */
  form?: HeldForm | null;
  /** Of the stepper's adapters, where it has any. */
  adapter?: PooledAdapter | null;
  /** Tokens that end the answer; the tokenizer's where absent, none where empty. */
  stopTokens?: ReadonlySet<number>;
  /** Give each part the tokens that it came from, each with its log-probability and those of so many likely others. */
  logprobs?: number;
  /** What the model has read before the prompt; changed in place by a model that answers alone. */
  cache?: Cache[];
  /** Embeddings (T, D) of the prompt's tokens, in place of the model's own. */
  inputEmbeddings?: Tensor;
  /** Places in the prompt, as counts of its tokens, at which what has been read is handed out. */
  boundaries?: readonly number[];
  /** Gets it there: a copy of the caches, which it disposes of, and the tokens that they stand for. */
  onBoundary?: (cache: Cache[], tokens: readonly number[]) => void;
  /** Called as the prompt is read. */
  onPrefill?: (done: number, total: number) => void;
  /** Ends the answer between two tokens. */
  signal?: AbortSignal;
}

export interface TokenLikelihood {
  token: number;
  logprob: number;
}

/** A token of an answer. */
export interface AnswerToken extends TokenLikelihood {
  /** The likeliest tokens in its place, the likeliest first. */
  top: TokenLikelihood[];
}

/** Something that was answered. Markers count to the part behind them. */
export type Part = TextPart & {
  /** The tokens since the part before, where asked for. */
  tokens?: AnswerToken[];
};

export type FinishReason = "stop" | "length" | "interrupted" | "tool_calls";

/** How drafts did. */
export interface DraftFigures {
  /** How many tokens were drafted, and how many of them were the model's own choice. */
  proposed: number;
  accepted: number;
  /** Their share; 0 where none was drafted. */
  acceptance: number;
  /** How often the model ran. Without drafts that is once for each token. */
  passes: number;
}

/** Always the last. Field names are mlx-lm's. */
export interface End {
  type: "end";
  /** "tool_calls": the model stopped after it had called tools on offer. */
  finish_reason: FinishReason;
  /** The stop text that ended it, where one did. */
  stop_text?: string;
  /** Tokens of the prompt that were fed. */
  prompt_tokens: number;
  /** Tokens of the prompt that needed no work. */
  cached_tokens: number;
  /** Tokens a second until the first generated token. */
  prompt_tps: number;
  generation_tokens: number;
  /** Tokens a second after it. */
  generation_tps: number;
  /** GB (10⁹ bytes). */
  peak_memory: number;
  /** Of a stepper that drafts. */
  drafts?: DraftFigures;
  /** All tokens that were generated, one that stopped the answer too. */
  generated: readonly number[];
  /** The tokens since the last part, where asked for. */
  tokens?: AnswerToken[];
  /** Whether the answer fits its grammar to the end, where it has one: false where it was cut. */
  complete?: boolean;
}

/** Who answers. */
export interface Answering {
  stepper: Stepper;
  tokenizer: Tokenizer;
  /** Prompts that were read before: an answer begins with what it shares with one of them. */
  prefixes?: Prefixes;
}

/**
 * Answers a prompt. An answer that the caller leaves before its end frees what it holds.
 * @throws UserError for an empty prompt, tokens that the model does not know, `maxTokens` 0, options out of their range
 */
export async function* answer(
  request: AnswerRequest,
  { stepper, tokenizer, prefixes }: Answering,
): AsyncGenerator<Part | End, void, void> {
  const { maxTokens = 256, stopTokens = tokenizer.eosTokenIds, logprobs: wanted, signal, constraint } = request;
  let own: SeededSampler | null = null;
  let loan: Loan | null = null;
  let inputEmbeddings: Tensor | undefined;
  const generated: number[] = [];
  let tokens: AnswerToken[] | undefined = wanted === undefined ? undefined : [];
  /** The first of parts that come together takes the tokens. */
  const withTokens = (part: Part): Part => {
    if (tokens && tokens.length > 0) [part.tokens, tokens] = [tokens, []];
    return part;
  };
  let began = performance.now();
  let promptTps = 0;
  let finish: FinishReason = "length";
  const drafts: DraftFigures = { proposed: 0, accepted: 0, acceptance: 0, passes: 0 };
  try {
    if (!Number.isInteger(maxTokens) || maxTokens === 0 || maxTokens < -1) {
      const problem = `max-tokens must be 1 or more, or -1 for no limit, not ${maxTokens}`;
      throw new UserError(problem, { code: ExitCode.usage });
    }
    const prompt = "messages" in request.prompt ? await encoded(request.prompt, request, tokenizer) : request.prompt;
    const chosen = await samplerOf(request.sampler, tokenizer);
    const text = new AnswerText(tokenizer, prompt, request);
    own = request.seed === undefined ? null : seeded(chosen, request.seed);
    const lent = request.cache ? null : (prefixes?.take(prompt) ?? null);
    loan = lent;
    const cached = lent?.count ?? 0;
    began = performance.now();
    inputEmbeddings = cached > 0 ? behind(request.inputEmbeddings, cached) : request.inputEmbeddings;
    for await (const { token, logprobs } of stepper.steps({
      prompt: cached > 0 ? prompt.slice(cached) : prompt,
      maxTokens,
      sampler: own?.sampler ?? chosen,
      logitsProcessors: request.logitsProcessors,
      constraint,
      form: request.form,
      adapter: request.adapter,
      stopTokens,
      cache: request.cache ?? lent?.layers,
      cachedTokens: cached > 0 ? prompt.slice(0, cached) : undefined,
      logprobs: wanted !== undefined,
      inputEmbeddings,
      boundaries: request.boundaries?.flatMap((place) => (place > cached ? place - cached : [])),
      onBoundary: request.onBoundary,
      onPrefill: request.onPrefill,
      onDrafts(proposed, accepted) {
        drafts.proposed += proposed;
        drafts.accepted += accepted;
        drafts.acceptance = drafts.accepted / Math.max(drafts.proposed, 1);
        drafts.passes += 1;
      },
      onEnd: lent ? (layers, held) => lent.settle(held, layers) : undefined,
      signal,
    })) {
      if (generated.length === 0) {
        promptTps = (prompt.length - cached) / ((performance.now() - began) / 1000);
        began = performance.now();
      }
      generated.push(token);
      if (logprobs) tokens!.push(likelihoodOf(token, logprobs, wanted!));
      if (stopTokens.has(token)) {
        finish = "stop";
        break;
      }
      for (const part of text.push(token)) yield withTokens(part);
      if (text.stoppedBy !== null) {
        finish = "stop";
        break;
      }
      if (generated.length === maxTokens) break;
    }
    // Where nothing may follow, the steps end by themselves.
    if (constraint && generated.length !== maxTokens) finish = "stop";
    if (signal?.aborted) finish = "interrupted";
    const figures = {
      prompt_tokens: prompt.length - cached,
      cached_tokens: cached,
      prompt_tps: promptTps,
      generation_tokens: generated.length,
      generation_tps: generated.length / ((performance.now() - began) / 1000),
      peak_memory: mx.peakMemory() / 1e9,
      ...(drafts.passes > 0 && { drafts }),
    };
    for (const part of text.end()) yield withTokens(part);
    if (finish === "stop" && request.tools?.length && text.hasCalled) finish = "tool_calls";
    const stopText = text.stoppedBy === null ? {} : { stop_text: text.stoppedBy };
    const ending = { ...stopText, ...(constraint && { complete: constraint.isComplete }) };
    yield { type: "end", ...figures, finish_reason: finish, ...ending, generated, ...(tokens && { tokens }) };
  } finally {
    constraint?.dispose();
    own?.dispose();
    loan?.close();
    if (inputEmbeddings !== request.inputEmbeddings) inputEmbeddings?.dispose();
  }
}

/** Embeddings (T, D) without the first `count`. The caller disposes of them. */
const behind = (embeddings: Tensor | undefined, count: number): Tensor | undefined =>
  embeddings && mx.scope(() => embeddings.at(mx.slice(count)));

function encoded(
  { messages, options }: { messages: ChatMessage[]; options?: ChatOptions },
  { tools }: AnswerRequest,
  tokenizer: Tokenizer,
): Promise<number[]> {
  const offer = tools ? { tools: [...tools] } : {};
  return tokenizer.encodeChat(messages, { addGenerationPrompt: true, ...offer, ...options });
}

/** XTC spares what ends lines and answers. */
async function samplerOf(wanted: AnswerRequest["sampler"], tokenizer: Tokenizer): Promise<Sampler> {
  if (typeof wanted === "function") return wanted;
  if (!wanted?.xtcProbability || wanted.xtcSpecialTokens) return wanted ? makeSampler(wanted) : greedy;
  const xtcSpecialTokens = [...(await tokenizer.encode("\n")), ...tokenizer.eosTokenIds];
  return makeSampler({ ...wanted, xtcSpecialTokens });
}

/** A token's log-probability, and those of the likeliest; gives the log-probabilities (V) back. */
function likelihoodOf(token: number, logprobs: Tensor, count: number): AnswerToken {
  try {
    return mx.scope(() => {
      const all = logprobs.astype("float32");
      const logprob = all.at(token).item();
      if (count < 1) return { token, logprob, top: [] };
      const order = mx.argpartition(all.negative(), Math.min(count, all.size) - 1).at(mx.slice(0, count));
      const [ids, values] = [order.toArray() as Uint32Array, mx.take(all, order).toArray() as Float32Array];
      const top = Array.from(ids, (id, i) => ({ token: id, logprob: values[i]! }));
      return { token, logprob, top: top.sort((a, b) => b.logprob - a.logprob || a.token - b.token) };
    });
  } finally {
    logprobs.dispose();
  }
}
