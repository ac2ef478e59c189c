/** Perplexity as mlx-lm measures it: over rows of equal length, cut from a dataset's texts laid end to end. */

import { counted } from "../counted";
import type { Rows } from "../data/rows";
import { ExitCode, UserError } from "../errors";
import { breathe } from "../macrotask";
import { NumpyRandom } from "../mersenne";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { crossEntropy } from "../nn";
import type { Tokenizer } from "../text/tokenizer";
import { rowTokens } from "./row-tokens";

export interface SamplingOptions {
  /** How many rows; -1: all that the data gives. */
  numSamples: number;
  /** Tokens in a row. */
  sequenceLength: number;
  seed: number;
  signal?: AbortSignal;
}

/**
 * Rows of `sequenceLength` tokens, from texts in the order that NumPy draws for the seed.
 * @throws UserError where the data is of no known kind, or gives no whole row
 */
export async function sampleTokens(
  rows: Rows,
  tokenizer: Tokenizer,
  { numSamples, sequenceLength, seed, signal }: SamplingOptions,
): Promise<number[][]> {
  const tokensAt = rowTokens(rows, tokenizer);
  const wanted = numSamples < 0 ? Number.POSITIVE_INFINITY : numSamples * sequenceLength;
  const tokens: number[] = [];
  for (const index of new NumpyRandom(seed).permutation(rows.length)) {
    if (tokens.length >= wanted || signal?.aborted) break;
    for (const token of await tokensAt(index)) tokens.push(token);
    await breathe();
  }
  const count = Math.floor(Math.min(tokens.length, wanted) / sequenceLength);
  if (count === 0 && !signal?.aborted) {
    throw new UserError(`the data has ${counted(tokens.length, "token")}, fewer than one row of ${sequenceLength}`, {
      code: ExitCode.usage,
      hint: "Take more data, or shorter rows: --sequence-length N",
    });
  }
  return Array.from({ length: count }, (_, i) => tokens.slice(i * sequenceLength, (i + 1) * sequenceLength));
}

export interface PerplexityOptions {
  batchSize: number;
  /** Called after each batch. */
  onBatch?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

export interface Perplexity {
  perplexity: number;
  standard_error: number;
}

/**
 * exp of the mean loss over all tokens but each row's first, and its standard error by the delta method.
 * @returns null where it was interrupted
 */
export async function measurePerplexity(
  model: LanguageModel,
  data: readonly (readonly number[])[],
  { batchSize, onBatch, signal }: PerplexityOptions,
): Promise<Perplexity | null> {
  if (signal?.aborted) return null;
  const total = Math.ceil(data.length / batchSize);
  const losses: Tensor[] = [];
  try {
    for (let done = 0; done < total; done++) {
      if (signal?.aborted) return null;
      const rows = data.slice(done * batchSize, (done + 1) * batchSize);
      const loss = mx.scope(() => {
        const batch = mx.array(rows.flat(), "uint32", [rows.length, rows[0]!.length]);
        const logits = model.forward(batch.at(":", mx.slice(0, -1))).astype("float32");
        return crossEntropy(logits, batch.at(":", mx.slice(1))).flatten();
      });
      losses.push(loss);
      mx.eval(loss);
      mx.clearCache();
      onBatch?.(done + 1, total);
      await breathe();
    }
    return mx.scope(() => {
      const all = mx.concatenate(losses);
      const perplexity = Math.exp(all.mean().item());
      const deviation = mx.sqrt(mx.variance(all, { ddof: 1 })).item();
      return { perplexity, standard_error: (perplexity * deviation) / Math.sqrt(all.size) };
    });
  } finally {
    for (const loss of losses) loss.dispose();
  }
}

/** Field names are mlx-lm's. */
export interface PerplexityReport extends Perplexity {
  /** Seconds. */
  evaluation_time: number;
  /** Tokens that were predicted. */
  tokens_per_second: number;
  /** GB (10⁹ bytes). */
  peak_memory: number;
  total_samples: number;
  total_tokens: number;
}

/** The perplexity, with what it took. @returns null where it was interrupted */
export async function reportPerplexity(
  model: LanguageModel,
  data: readonly (readonly number[])[],
  options: PerplexityOptions,
): Promise<PerplexityReport | null> {
  const began = performance.now();
  const result = await measurePerplexity(model, data, options);
  if (!result) return null;
  const seconds = (performance.now() - began) / 1000;
  const count = (skipped: number) => data.reduce((sum, { length }) => sum + length - skipped, 0);
  return {
    ...result,
    evaluation_time: seconds,
    tokens_per_second: count(1) / seconds,
    peak_memory: mx.peakMemory() / 1e9,
    total_samples: data.length,
    total_tokens: count(0),
  };
}
