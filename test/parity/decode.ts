/** mlx-lm's generate_step in its plainest form: prefill all but the last token, then one token after the other. */

import type { Tensor } from "../../src/mlx";
import * as mx from "../../src/mlx";

/** What decoding needs of a model. */
export interface Decodable<Cache> {
  forward(inputs: Tensor, options?: { cache?: Cache[] }): Tensor;
  makeCache(): Cache[];
}

/** Logprobs (1, V) to token ids (1). */
export type Sampler = (logprobs: Tensor) => Tensor;

export const greedy: Sampler = (logprobs) => mx.argmax(logprobs, { axis: -1 });

/** A row of token ids as (1, T). */
export const row = (ids: readonly number[]) => mx.array([ids], "uint32");

/** The `count` tokens that follow the prompt. */
export function decode<Cache extends { state: unknown }>(
  model: Decodable<Cache>,
  prompt: readonly number[],
  count: number,
  sampler: Sampler = greedy,
): number[] {
  const cache = model.makeCache();
  mx.scope(() => void model.forward(row(prompt.slice(0, -1)), { cache }));
  mx.eval(cache.map((layer) => layer.state));

  const tokens: number[] = [];
  let last = prompt.at(-1)!;
  while (tokens.length < count) {
    mx.scope(() => {
      const logits = model.forward(row([last]), { cache }).at(mx.slice(), -1);
      last = sampler(logits.subtract(logits.logsumexp({ keepdims: true }))).item();
    });
    tokens.push(last);
  }
  return tokens;
}

/** Takes these tokens one after the other, and keeps how far each is behind the likeliest one. */
export function following(tokens: readonly number[]): { sampler: Sampler; behind: number[] } {
  const behind: number[] = [];
  return {
    behind,
    sampler(logprobs) {
      const token = tokens[behind.length]!;
      const own = logprobs.astype("float32").flatten();
      behind.push(own.max().item() - own.at(token).item());
      return mx.array([token], "uint32");
    },
  };
}
