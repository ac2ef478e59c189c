/** Samplers: from log-probabilities to a token. */

import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { checkMinP, checkXtc, minP, topK, topP, xtc } from "./filters";

/** Picks tokens: log-probabilities (B, V) → ids (B). */
export type Sampler = (logprobs: Tensor) => Tensor;

/** Each filter is off at its default, in any case at temperature 0. */
export interface SamplerOptions {
  /** Temperature; 0 always takes the most likely token. */
  temp?: number;
  /** Keep the fewest tokens that have this much of the probability together, on (0, 1). */
  topP?: number;
  /** Drop tokens less likely than this share of the most likely one's probability. */
  minP?: number;
  /** How many tokens `minP` leaves at least. */
  minTokensToKeep?: number;
  /** Keep so many tokens. */
  topK?: number;
  /** How often to drop all likely tokens but the least likely of them. */
  xtcProbability?: number;
  /** From which probability on a token counts as likely there. */
  xtcThreshold?: number;
  /** Tokens that are never dropped so. */
  xtcSpecialTokens?: readonly number[];
}

export const greedy: Sampler = (logprobs) => mx.argmax(logprobs, { axis: -1 });

/** Samplers that drop no token. */
const unfiltered = new WeakSet<Sampler>([greedy]);

/** Whether a sampler drops no token: it then draws a token with a mask as often as without one, among those allowed. */
export const dropsNothing = (sampler: Sampler): boolean => unfiltered.has(sampler);

/** A sampler that draws as another one does, with random numbers of its own. */
export function drawsAs(sampler: Sampler, like: Sampler): Sampler {
  if (unfiltered.has(like)) unfiltered.add(sampler);
  return sampler;
}

const random = { inputs: [mx.random.state], outputs: [mx.random.state] };

const categorical = mx.compile(
  (logprobs: Tensor, temp: number) => mx.random.categorical(logprobs.multiply(1 / temp)),
  random,
);

/**
 * Filters act one after the other on the log-probabilities as they are; the temperature comes last.
 * @throws UserError for an option out of its range
 */
export function makeSampler(options: SamplerOptions = {}): Sampler {
  const { temp = 0, topP: mass = 0, minP: share = 0, minTokensToKeep = 1, topK: count = 0 } = options;
  const { xtcProbability = 0, xtcThreshold = 0.1, xtcSpecialTokens = [] } = options;
  if (temp === 0) return greedy;

  const filters: ((logprobs: Tensor) => Tensor)[] = [];
  if (mass > 0 && mass < 1) filters.push((logprobs) => topP(logprobs, mass));
  if (share !== 0) {
    checkMinP(share, minTokensToKeep);
    filters.push((logprobs) => minP(logprobs, share, minTokensToKeep));
  }
  if (xtcProbability > 0) {
    checkXtc(xtcProbability, xtcThreshold);
    filters.push((logprobs) => xtc(logprobs, xtcProbability, xtcThreshold, xtcSpecialTokens));
  }
  if (count > 0) filters.push((logprobs) => topK(logprobs, count));

  const sampler: Sampler = (logprobs) =>
    categorical(
      filters.reduce((left, filter) => filter(left), logprobs),
      temp,
    );
  if (filters.length === 0) unfiltered.add(sampler);
  return sampler;
}
