/** One sequence of a batch: what was asked for, and how far it is. */
import { ExitCode, UserError } from "../../errors";
import type { Tensor } from "../../mlx";
import type { Cache } from "../../models";
import type { LogitsProcessor, Sampler } from "../../sample";
import type { Constraint } from "../../sample/grammar/constraint";
import type { PooledAdapter } from "../../tune/adapter-pool";
import { checkPrompt } from "../prefill";
import { type Chooser, History } from "../sampling-step";

export interface BatchRequest {
  prompt: readonly number[];
  /** How many tokens to generate at most. */
  maxTokens?: number;
  sampler?: Sampler;
  logitsProcessors?: readonly LogitsProcessor[];
  /** Holds the answer to a grammar; it ends where nothing may follow. */
  constraint?: Constraint | null;
  /** Of the generator's pool: what the model has for this sequence. */
  adapter?: PooledAdapter | null;
  /** Sequences of tokens that end the answer. */
  stop?: readonly (readonly number[])[];
  /** What the model has read before the prompt; it is copied. */
  cache?: readonly Cache[];
  /** The tokens that `cache` stands for: logits processors see them too. */
  cachedTokens?: readonly number[];
  /** Places in the prompt, as counts of its tokens, at which prefill halts for a moment. */
  boundaries?: readonly number[];
  /** Hand out each token's log-probabilities (V). */
  logprobs?: boolean;
  /** Hand out the cache and its tokens when the sequence ends. */
  keepCache?: boolean;
}

export type Wanted = Required<Omit<BatchRequest, "cache" | "cachedTokens">> & {
  /** The text that the answer must begin with, as tokens: the last ones of the prompt. */
  opening: readonly number[];
};

export class Sequence implements Chooser {
  readonly prompt: readonly number[];
  readonly maxTokens: number;
  readonly sampler: Sampler;
  readonly logitsProcessors: readonly LogitsProcessor[];
  readonly constraint: Constraint | null;
  readonly adapter: PooledAdapter | null;
  readonly opening: readonly number[];
  readonly stop: readonly (readonly number[])[];
  readonly boundaries: readonly number[];
  readonly logprobs: boolean;
  readonly keepCache: boolean;
  /** How many of the prompt's tokens have been fed. */
  fed = 0;
  /** How many tokens have been generated. */
  generated: number;
  /** What logits processors see, once the prompt is read. */
  #history: History | null = null;

  /** @param tokens what the cache stands for; grows with it */
  constructor(
    readonly id: number,
    readonly tokens: number[],
    wanted: Wanted,
  ) {
    this.prompt = wanted.prompt;
    this.maxTokens = wanted.maxTokens;
    this.sampler = wanted.sampler;
    this.logitsProcessors = wanted.logitsProcessors;
    this.constraint = wanted.constraint;
    this.adapter = wanted.adapter;
    this.opening = wanted.opening;
    this.generated = wanted.opening.length;
    this.stop = wanted.stop;
    this.boundaries = wanted.boundaries;
    this.logprobs = wanted.logprobs;
    this.keepCache = wanted.keepCache;
  }

  /** How much of the prompt that was asked for has been read, the last token too once the answer has begun. */
  progress(read = this.fed): { done: number; total: number } {
    const total = this.prompt.length - this.opening.length;
    return { done: Math.min(read, total), total };
  }

  /** All tokens so far, given the newest, (1). */
  seen(newest: Tensor): Tensor {
    this.#history ??= new History(this.tokens.slice(0, -1));
    return this.#history.add(newest);
  }

  /** Gives the memory of the tokens back. */
  forget(): void {
    this.#history?.dispose();
    this.#history = null;
  }
}

/** @throws UserError for an empty prompt, foreign token ids, or no tokens to generate */
export function checkRequest({ prompt, maxTokens }: BatchRequest, vocabSize: number): void {
  checkPrompt(prompt, vocabSize);
  if (maxTokens !== undefined && (!Number.isInteger(maxTokens) || maxTokens < 1)) {
    throw new UserError(`max-tokens must be 1 or more, not ${maxTokens}`, { code: ExitCode.usage });
  }
}

/** How many of the prompt's tokens go in the next chunk: all but the last are fed before decoding begins. */
export function nextChunk({ prompt, fed, boundaries }: Sequence, stepSize: number): number {
  const end = prompt.length - 1;
  const halt = boundaries.find((place) => place > fed && place < end) ?? end;
  return Math.min(stepSize, halt - fed);
}

/** How much of a chunk may be padding. */
const mostPadding = 0.25;

/**
 * How long the next chunk of several prompts is, which can take so many tokens each: as long as padding allows, and no
 * more than `most` tokens in all.
 */
export function evenChunk(lengths: readonly number[], most: number): number {
  const isEven = (length: number) => {
    const fed = lengths.reduce((sum, one) => sum + Math.min(one, length), 0);
    return fed >= (1 - mostPadding) * length * lengths.length;
  };
  const longest = Math.max(...lengths.filter(isEven));
  return Math.max(1, Math.min(longest, Math.floor(most / lengths.length)));
}

/** Whether what has been generated ends with one of the sequences that stop it. */
export function isStopped({ tokens, generated, stop }: Sequence): boolean {
  return stop.some(
    (sequence) =>
      sequence.length > 0 &&
      sequence.length <= generated &&
      sequence.every((token, i) => token === tokens[tokens.length - sequence.length + i]),
  );
}
