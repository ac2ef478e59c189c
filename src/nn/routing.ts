/** Mixtures of experts: which experts each token uses, and the block around them. Shazeer et al. 2017, arXiv:1701.06538. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { type Layer, Linear } from "./linear";
import { GatedMLP } from "./mlp";
import { Module } from "./module";
import { SwitchGLU, type SwitchMLP } from "./switch";
import { expertsToken, routeTokens } from "./token-steps";

/** The experts that each token uses, and the weights of their results: both (…, k). */
export interface Routing {
  experts: Tensor;
  weights: Tensor;
}

/** The k highest of scores (…, E), in no order. No gradient flows through the choice. */
export function highest(scores: Tensor, k: number): Tensor {
  const order = mx.argpartition(scores.negative(), k - 1, { axis: -1 });
  return mx.stopGradient(order.at(mx.ellipsis, mx.slice(0, k)));
}

/** The k highest logits (…, E), weighted by a softmax over these k. */
export function softmaxOfHighest(logits: Tensor, k: number): Routing {
  const experts = highest(logits, k);
  return { experts, weights: mx.softmax(logits.takeAlongAxis(experts, -1), { axis: -1, precise: true }) };
}

/** The k highest probabilities of a softmax over all logits (…, E); `normalize`: made to sum to one. */
export function highestOfSoftmax(logits: Tensor, k: number, { normalize }: { normalize: boolean }): Routing {
  const short = routeTokens(logits, k, { normalize });
  if (short) return short;
  const probabilities = mx.softmax(logits, { axis: -1, precise: true });
  // The other end of the order than above, as mlx-lm has it: the order of experts is that of rounding in their sum.
  const order = mx.argpartition(probabilities, -k, { axis: -1 });
  const experts = mx.stopGradient(order.at(mx.ellipsis, mx.slice(-k)));
  const chosen = probabilities.takeAlongAxis(experts, -1);
  return { experts, weights: normalize ? chosen.divide(chosen.sum({ axis: -1, keepdims: true })) : chosen };
}

/**
 * SparseMixer, as it infers: k times the highest of the logits (…, E) that are left, weighted by a softmax over those of
 * them that are no further below it than `2 · jitter` of its size or theirs. Liu et al. 2023, arXiv:2310.00811.
 */
export function sparseMixer(logits: Tensor, k: number, { jitter }: { jitter: number }): Routing {
  const experts: Tensor[] = [];
  const weights: Tensor[] = [];
  let left = logits;
  for (let i = 0; i < k; i++) {
    const highest = left.max({ axis: -1, keepdims: true });
    const expert = mx.stopGradient(mx.argmax(left, { axis: -1, keepdims: true }));
    const distance = highest.subtract(logits).divide(logits.abs().maximum(highest));
    const near = mx.softmax(mx.where(distance.greater(2 * jitter), -Infinity, left), { axis: -1, precise: true });
    experts.push(expert);
    weights.push(near.takeAlongAxis(expert, -1));
    left = mx.putAlongAxis(left, expert, -Infinity, { axis: -1 });
  }
  return { experts: mx.concatenate(experts, { axis: -1 }), weights: mx.concatenate(weights, { axis: -1 }) };
}

/** The weighted sum of the chosen experts' results: x (…, D) → (…, D) */
export function mixExperts(x: Tensor, layer: SwitchGLU | SwitchMLP, { experts, weights }: Routing): Tensor {
  const whole = layer instanceof SwitchGLU && !layer.isDivided;
  const short = whole ? expertsToken(x, layer, experts, weights) : null;
  if (short) return short;
  const mixed = (results: Tensor) => results.multiply(weights.expandDims(-1)).sum({ axis: -2 });
  return layer.isDivided ? layer.summed(mixed(layer.partial(x, experts))) : mixed(layer.forward(x, experts));
}

export interface SparseMLPSizes {
  dims: number;
  /** Width within one expert. */
  hiddenDims: number;
  experts: number;
  expertsPerToken: number;
  /** Whether the weights of a token's experts are made to sum to one. */
  normalize: boolean;
}

/** Experts, chosen by the highest probabilities of a softmax over all. */
export class SparseMLP extends Module {
  gate: Layer;
  switch_mlp: SwitchGLU;
  readonly expertsPerToken: number;
  readonly normalize: boolean;

  constructor({ dims, hiddenDims, experts, expertsPerToken, normalize }: SparseMLPSizes) {
    super();
    this.gate = new Linear(dims, experts, { bias: false });
    this.switch_mlp = new SwitchGLU(dims, hiddenDims, experts);
    this.expertsPerToken = expertsPerToken;
    this.normalize = normalize;
  }

  /** x (…, D) → (…, D) */
  forward(x: Tensor): Tensor {
    return mixExperts(x, this.switch_mlp, highestOfSoftmax(this.gate.forward(x), this.expertsPerToken, this));
  }
}

/** The same beside an expert that all tokens use, behind a sigmoid gate. */
export class SharedExpertMLP extends SparseMLP {
  shared_expert: GatedMLP;
  shared_expert_gate: Layer;

  constructor({ sharedDims, ...sizes }: SparseMLPSizes & { sharedDims: number }) {
    super(sizes);
    this.shared_expert = new GatedMLP(sizes.dims, sharedDims);
    this.shared_expert_gate = new Linear(sizes.dims, 1, { bias: false });
  }

  override forward(x: Tensor): Tensor {
    const shared = this.shared_expert.forward(x).multiply(this.shared_expert_gate.forward(x).sigmoid());
    return super.forward(x).add(shared);
  }
}
