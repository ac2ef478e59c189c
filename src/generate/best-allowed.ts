/** The most likely token that a grammar allows, found by asking it about the likeliest ones: that takes no mask. */
import * as mx from "../mlx";
import { greedy, type Sampler } from "../sample";
import type { Constraint } from "../sample/grammar/constraint";

/** So many are asked about. Each takes about 1 µs; a mask over a large vocabulary takes up to 25 ms. */
const tried = 256;

/** Whether `bestAllowed` is what a sampler takes. */
export const takesBest = (sampler: Sampler): boolean => sampler === greedy;

/**
 * What greedy choice takes among the tokens that are allowed, given log-probabilities (B, V) and the row. The constraint
 * has gone along with it. Null where none of the likeliest is allowed: then a mask has to tell.
 */
export function bestAllowed(constraint: Constraint, logprobs: mx.Tensor, row: number): number | null {
  return mx.highestOf(logprobs, row, tried).find((token) => constraint.accept(token)) ?? null;
}
