/** Layers of many experts of which each token uses a few. Shazeer et al. 2017, arXiv:1701.06538. */

import type { distributed, Tensor } from "../mlx";
import * as mx from "../mlx";
import { swiglu } from "./activations";
import { Module } from "./module";
import { type Divisible, divideExperts, type Split } from "./shard";
import { type ExpertLayer, type ExpertOptions, SwitchLinear } from "./switch-linear";

/** From how many expert uses on tokens are sorted by expert, so that each expert's weight is read in one go. */
const sortingPays = 64;

/** x (…, 1, 1, K) flattened and in the order of experts, the indices likewise, whose rows they are, and the way back. */
function sortByExpert(x: Tensor, indices: Tensor): { x: Tensor; indices: Tensor; places: Tensor; inverse: Tensor } {
  const perToken = indices.dim(-1);
  const flat = indices.flatten();
  const order = mx.argsort(flat);
  const places = order.floorDivide(perToken);
  return { x: x.flatten(0, -3).take(places, 0), indices: flat.take(order, 0), places, inverse: mx.argsort(order) };
}

export interface SwitchGLUOptions {
  bias?: boolean;
  activation?: (gate: Tensor, x: Tensor) => Tensor;
}

/** Feed-forward blocks, one per expert, whose inner features may be divided among processes. */
abstract class Experts extends Module implements Divisible {
  /** The processes that each have a part of every expert; null where this one has all. */
  #group: distributed.Group | null = null;

  /** x (…, dims), indices (…, k) of the experts for each token → (…, k, dims) */
  forward(x: Tensor, indices: Tensor): Tensor {
    return this.summed(this.partial(x, indices));
  }

  /** This process's part of that. */
  abstract partial(x: Tensor, indices: Tensor): Tensor;

  /** Its sum over the processes. It may be mixed before, which is less to send. */
  summed(part: Tensor): Tensor {
    return this.#group ? mx.distributed.allSum(part, { group: this.#group }) : part;
  }

  get isDivided(): boolean {
    return this.#group !== null;
  }

  shard(split: Split): void {
    if (divideExperts(...this.layers(), split)) this.#group = split.group;
  }

  protected abstract layers(): [down: ExpertLayer, ups: ExpertLayer[]];
}

/** A gated feed-forward block per expert. */
export class SwitchGLU extends Experts {
  gate_proj: ExpertLayer;
  up_proj: ExpertLayer;
  down_proj: ExpertLayer;
  readonly activation: (gate: Tensor, x: Tensor) => Tensor;

  constructor(
    dims: number,
    hiddenDims: number,
    experts: number,
    { bias = false, activation = swiglu }: SwitchGLUOptions = {},
  ) {
    super();
    this.gate_proj = new SwitchLinear(dims, hiddenDims, experts, { bias });
    this.up_proj = new SwitchLinear(dims, hiddenDims, experts, { bias });
    this.down_proj = new SwitchLinear(hiddenDims, dims, experts, { bias });
    this.activation = activation;
  }

  partial(x: Tensor, indices: Tensor): Tensor {
    return throughExperts(x, indices, (x, indices, options) => {
      const up = this.up_proj.forward(x, indices, options);
      const gate = this.gate_proj.forward(x, indices, options);
      return this.down_proj.forward(this.activation(gate, up), indices, options);
    });
  }

  protected layers(): [ExpertLayer, ExpertLayer[]] {
    return [this.down_proj, [this.gate_proj, this.up_proj]];
  }
}

/** A feed-forward block without a gate per expert. */
export class SwitchMLP extends Experts {
  fc1: ExpertLayer;
  fc2: ExpertLayer;

  constructor(
    dims: number,
    hiddenDims: number,
    experts: number,
    readonly activation: (x: Tensor) => Tensor,
    { bias = false }: { bias?: boolean } = {},
  ) {
    super();
    this.fc1 = new SwitchLinear(dims, hiddenDims, experts, { bias });
    this.fc2 = new SwitchLinear(hiddenDims, dims, experts, { bias });
  }

  partial(x: Tensor, indices: Tensor): Tensor {
    return throughExperts(x, indices, (x, indices, options) => {
      const hidden = this.activation(this.fc1.forward(x, indices, options));
      return this.fc2.forward(hidden, indices, options);
    });
  }

  protected layers(): [ExpertLayer, ExpertLayer[]] {
    return [this.fc2, [this.fc1]];
  }
}

/** x (…, dims), indices (…, k) → (…, k, dims): tokens as experts take them, sorted where it pays, and back in place. */
function throughExperts(
  x: Tensor,
  indices: Tensor,
  compute: (x: Tensor, indices: Tensor, options: ExpertOptions) => Tensor,
): Tensor {
  const chosen = mx.stopGradient(indices);
  const tokens = x.expandDims([-2, -3]);
  if (chosen.size < sortingPays) return compute(tokens, chosen, {}).squeeze(-2);
  const sorted = sortByExpert(tokens, chosen);
  const options = { sorted: true, tokens: { places: sorted.places, count: chosen.size / chosen.dim(-1) } };
  const results = compute(sorted.x, sorted.indices, options).take(sorted.inverse, 0);
  return results.unflatten(0, chosen.shape).squeeze(-2);
}
