/** What samplers do before they draw: log-probabilities (B, V) with −∞ for the tokens that drop out. */
import { ExitCode, UserError } from "../errors";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";

const never = Number.NEGATIVE_INFINITY;

function usage(message: string): UserError {
  return new UserError(message, { code: ExitCode.usage });
}

const within = (value: number, low: number, high: number) => value >= low && value <= high;

const compiledTopK = mx.compile((logprobs: Tensor, count: number) => {
  const order = mx.argpartition(logprobs.negative(), count - 1, { axis: -1 });
  const dropped = order.at(mx.ellipsis, mx.slice(count));
  return mx.putAlongAxis(logprobs, dropped, mx.array(never, logprobs.dtype), { axis: -1 });
});

/** Keeps the `count` most likely tokens. @throws UserError unless 0 < count < V */
export function topK(logprobs: Tensor, count: number): Tensor {
  const vocabulary = logprobs.dim(-1);
  if (!Number.isInteger(count) || count <= 0 || count >= vocabulary) {
    throw usage(`top-k must be an integer between 0 and ${vocabulary} (the vocabulary), exclusive, not ${count}`);
  }
  return compiledTopK(logprobs, count);
}

/**
 * Nucleus sampling (Holtzman et al. 2019, arXiv:1904.09751): drops the tokens that the more likely ones outweigh with
 * a share `mass` of the probability or more. Ties with the last one kept stay.
 */
export const topP = mx.compile((logprobs: Tensor, mass: number) => {
  const ascending = mx.sort(logprobs, { axis: -1 });
  const probabilities = ascending.astype("float32").exp();
  const above = probabilities.cumsum(-1, { reverse: true, inclusive: false });
  const first = [mx.ellipsis, mx.slice(0, 1)] as const;
  const total = above.at(...first).add(probabilities.at(...first));
  const dropped = above.greaterEqual(total.multiply(mass)).sum({ axis: -1, keepdims: true });
  const threshold = ascending.takeAlongAxis(dropped, -1);
  return mx.where(logprobs.less(threshold), never, logprobs);
});

export function checkMinP(share: number, minTokensToKeep: number): void {
  if (!within(share, 0, 1)) throw usage(`min-p must lie between 0 and 1, not ${share}`);
  if (!Number.isInteger(minTokensToKeep) || minTokensToKeep < 1) {
    throw usage(`min-tokens-to-keep must be a positive integer, not ${minTokensToKeep}`);
  }
}

/** Min-p sampling: drops tokens below a share of the most likely one's probability. arXiv:2407.01082. */
export const minP = mx.compile((logprobs: Tensor, share: number, minTokensToKeep: number) => {
  const threshold = logprobs.max({ axis: -1, keepdims: true }).add(Math.log(share));
  let dropped = logprobs.less(threshold);
  if (minTokensToKeep > 1) {
    const kept = Math.min(minTokensToKeep, logprobs.dim(-1));
    const order = mx.argpartition(logprobs, -kept, { axis: -1 });
    const likeliest = order.at(mx.ellipsis, mx.slice(-kept));
    dropped = mx.putAlongAxis(dropped, likeliest, mx.array(false), { axis: -1 });
  }
  return mx.where(dropped, never, logprobs);
});

export function checkXtc(probability: number, threshold: number): void {
  if (!within(threshold, 0, 0.5)) throw usage(`xtc-threshold must lie between 0 and 0.5, not ${threshold}`);
  if (!within(probability, 0, 1)) throw usage(`xtc-probability must lie between 0 and 1, not ${probability}`);
}

/**
 * Exclude top choices: now and then, drops all tokens more likely than `threshold` but the least likely of them. One
 * draw decides for the whole batch.
 */
export const xtc = mx.compile(
  (logprobs: Tensor, probability: number, threshold: number, specialTokens: readonly number[]) => {
    const probabilities = mx.softmax(logprobs, { axis: -1 });
    const likely = mx.where(probabilities.greater(threshold), probabilities, Number.POSITIVE_INFINITY);
    let dropped = probabilities.greater(likely.min({ axis: -1, keepdims: true }));
    if (specialTokens.length > 0) dropped = dropped.put([mx.ellipsis, specialTokens], false);
    const spared = mx.random.uniform().greater(probability);
    return mx.where(spared, logprobs, mx.where(dropped, never, logprobs));
  },
  { inputs: [mx.random.state], outputs: [mx.random.state] },
);
