/** One sequence of a batch: what was asked for, and how far it is. */
import { ExitCode, UserError } from "../../errors";
import type { Tensor } from "../../mlx";
import type { Cache } from "../../models";
import type { LogitsProcessor, Sampler } from "../../sample";
import { checkPrompt } from "../prefill";

export interface BatchRequest {
  prompt: readonly number[];
  /** How many tokens to generate at most. */
  maxTokens?: number;
  sampler?: Sampler;
  logitsProcessors?: readonly LogitsProcessor[];
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

export interface Sequence extends Required<Omit<BatchRequest, "cache" | "cachedTokens">> {
  readonly id: number;
  /** What the cache stands for. */
  readonly tokens: number[];
  /** How many of the prompt's tokens have been fed. */
  fed: number;
  /** How many tokens have been generated. */
  generated: number;
  /** Tokens as logits processors see them, (T): kept, and only there where there are processors. */
  history: Tensor | null;
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

/** Whether what has been generated ends with one of the sequences that stop it. */
export function isStopped({ tokens, generated, stop }: Sequence): boolean {
  return stop.some(
    (sequence) =>
      sequence.length > 0 &&
      sequence.length <= generated &&
      sequence.every((token, i) => token === tokens[tokens.length - sequence.length + i]),
  );
}
