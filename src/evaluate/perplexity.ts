/** Perplexity as mlx-lm measures it: over rows of equal length, cut from a dataset's texts laid end to end. */

import type { Row, Rows } from "../data/rows";
import { ExitCode, UserError } from "../errors";
import { breathe } from "../macrotask";
import { NumpyRandom } from "../mersenne";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { crossEntropy } from "../nn";
import type { ChatMessage } from "../text/chat-template";
import type { Tokenizer } from "../text/tokenizer";

export interface SamplingOptions {
  /** How many rows; -1: all that the data gives. */
  numSamples: number;
  /** Tokens in a row. */
  sequenceLength: number;
  seed: number;
  signal?: AbortSignal;
}

/** Tokens of one row of data. */
export type Encoder = (row: Row) => Promise<number[]>;

/** By the columns, as mlx-lm's training data: prompt and completion, messages, or text. */
export function encoderFor({ columns }: Rows, tokenizer: Tokenizer): Encoder {
  const has = (name: string) => columns.includes(name);
  const chat = (row: Row, messages: unknown) =>
    tokenizer.encodeChat(messages as ChatMessage[], { tools: row.tools as unknown[] | null | undefined });
  if (has("prompt") && has("completion")) {
    return (row) =>
      chat(row, [
        { role: "user", content: row.prompt },
        { role: "assistant", content: row.completion },
      ]);
  }
  if (has("messages")) return (row) => chat(row, row.messages);
  if (has("text")) {
    const eos = tokenizer.eosToken === null ? null : tokenizer.idOf(tokenizer.eosToken);
    return async (row) => {
      const tokens = await tokenizer.encode(String(row.text));
      if (eos !== null && tokens.at(-1) !== eos) tokens.push(eos);
      return tokens;
    };
  }
  throw new UserError(`the data has the columns ${columns.join(", ")}, and none that mlxlm knows`, {
    hint: "It needs prompt and completion, or messages, or text.",
  });
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
  const encode = encoderFor(rows, tokenizer);
  const wanted = numSamples < 0 ? Number.POSITIVE_INFINITY : numSamples * sequenceLength;
  const tokens: number[] = [];
  for (const index of new NumpyRandom(seed).permutation(rows.length)) {
    if (tokens.length >= wanted || signal?.aborted) break;
    for (const token of await encode(await rows.at(index))) tokens.push(token);
    await breathe();
  }
  const count = Math.floor(Math.min(tokens.length, wanted) / sequenceLength);
  if (count === 0 && !signal?.aborted) {
    throw new UserError(`the data has ${tokens.length} tokens, fewer than one row of ${sequenceLength}`, {
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
