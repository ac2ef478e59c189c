/** Routing by sigmoids without groups: a learned bias on the scores, which only takes part in the choice, keeps the load even. */
import type { Tensor } from "../mlx";
import { highest, type Routing } from "./routing";

export interface SigmoidRouting {
  expertsPerToken: number;
  /** Whether the weights of a token's experts are made to sum to one, ahead of `scale`. */
  normalize?: boolean;
  /** Factor on the weights. */
  scale?: number;
}

/** Far below any score: no sum of weights is zero. */
const least = 1e-20;

/** The highest of σ(logits) + bias, logits (…, E) and bias (E), weighted by σ(logits) alone, in float32. */
export function highestOfSigmoid(logits: Tensor, bias: Tensor, options: SigmoidRouting): Routing {
  const { expertsPerToken, normalize = true, scale = 1 } = options;
  const scores = logits.astype("float32").sigmoid();
  const experts = highest(scores.add(bias), expertsPerToken);
  const chosen = scores.takeAlongAxis(experts, -1);
  const weights = normalize ? chosen.divide(chosen.sum({ axis: -1, keepdims: true }).add(least)) : chosen;
  return { experts, weights: scale === 1 ? weights : weights.multiply(scale) };
}
