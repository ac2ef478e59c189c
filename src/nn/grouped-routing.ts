/**
 * Routing by sigmoids: experts are in groups, of which a token uses a few, and a learned bias on the scores, which only
 * takes part in the choice, keeps the load even. DeepSeek-AI 2024, arXiv:2412.19437, section 2.1.2.
 */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { Module, parameter } from "./module";
import { highest, type Routing } from "./routing";

/** How many groups of experts there are, and how many of them a token uses. */
export interface Groups {
  groups: number;
  groupsPerToken: number;
  /** The score of experts in groups that a token does not use; 0 where absent. */
  unused?: number;
}

export interface GroupedRoutingOptions extends Groups {
  dims: number;
  experts: number;
  expertsPerToken: number;
  /** Whether the weights of a token's experts are made to sum to one, ahead of `scale`. */
  normalize: boolean;
  /** Factor on the weights. */
  scale: number;
}

export class GroupedRouter extends Module {
  /** (experts, dims) */
  weight: Tensor;
  /** (experts) */
  e_score_correction_bias: Tensor;

  constructor(readonly options: GroupedRoutingOptions) {
    super();
    const { dims, experts } = options;
    this.weight = parameter(mx.zeros([experts, dims]));
    this.e_score_correction_bias = parameter(mx.zeros([experts]));
  }

  /** x (…, dims) → the experts of each token and the weights of their results, float32: (…, k) each. */
  forward(x: Tensor): Routing {
    const scores = x.matmul(this.weight.T).astype("float32").sigmoid();
    return routeWithinGroups(scores, this.e_score_correction_bias, this.options);
  }
}

/** Routing by scores (…, E) at hand, of which the bias (E) only takes part in the choice. */
export function routeWithinGroups(
  scores: Tensor,
  bias: Tensor | null,
  options: Omit<GroupedRoutingOptions, "dims" | "experts">,
): Routing {
  const { expertsPerToken: k, normalize, scale } = options;
  const experts = highest(withinGroups(bias ? scores.add(bias) : scores, options), k);
  const chosen = scores.takeAlongAxis(experts, -1);
  const weights = k > 1 && normalize ? chosen.divide(chosen.sum({ axis: -1, keepdims: true })) : chosen;
  return { experts, weights: weights.multiply(scale) };
}

/** Far below any probability: no sum of weights is zero. */
const least = 1e-20;

/** The same by a softmax in float32 over all logits (…, E), without a bias. */
export function groupedSoftmax(logits: Tensor, options: Omit<GroupedRoutingOptions, "dims" | "experts">): Routing {
  const { expertsPerToken, normalize, scale } = options;
  const scores = mx.softmax(logits.astype("float32"), { axis: -1 });
  const experts = highest(withinGroups(scores, options), expertsPerToken);
  const chosen = scores.takeAlongAxis(experts, -1);
  const weights = normalize ? chosen.divide(chosen.sum({ axis: -1, keepdims: true }).add(least)) : chosen;
  return { experts, weights: weights.multiply(scale) };
}

/** Scores (…, E) without those of the groups that a token does not use: a group counts by its two best. */
function withinGroups(scores: Tensor, { groups, groupsPerToken, unused: score = 0 }: Groups): Tensor {
  if (groups <= 1 || groupsPerToken >= groups) return scores;
  const byGroup = mx.unflatten(scores, -1, [groups, -1]);
  const best = mx.topk(byGroup, 2, { axis: -1 }).sum({ axis: -1, keepdims: true });
  const left = groups - groupsPerToken;
  const order = mx.argpartition(best, left - 1, { axis: -2 });
  const unused = mx.stopGradient(order.at(mx.ellipsis, mx.slice(0, left), mx.slice()));
  return mx.putAlongAxis(byGroup, unused, score, { axis: -2 }).flatten(-2, -1);
}
