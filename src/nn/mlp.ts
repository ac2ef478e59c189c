/** The gated feed-forward block. */
import type { Tensor } from "../mlx";
import { swiglu } from "./activations";
import { type Layer, Linear } from "./linear";
import { Module } from "./module";
import { project } from "./projection";

export interface GatedMLPOptions {
  bias?: boolean;
  /** What becomes of the gate and the value; SwiGLU unless said. */
  activation?: (gate: Tensor, x: Tensor) => Tensor;
  /** Architectures differ in whether `down_proj` comes last or second: a seed draws weights and adapters in this order. */
  downLast?: boolean;
}

/** down(activation(gate(x), up(x))). Shazeer 2020, arXiv:2002.05202. */
export class GatedMLP extends Module {
  declare gate_proj: Layer;
  declare down_proj: Layer;
  declare up_proj: Layer;
  readonly activation: (gate: Tensor, x: Tensor) => Tensor;

  constructor(dims: number, hiddenDims: number, options: GatedMLPOptions = {}) {
    super();
    const { bias = false, activation = swiglu, downLast = false } = options;
    this.gate_proj = new Linear(dims, hiddenDims, { bias });
    if (!downLast) this.down_proj = new Linear(hiddenDims, dims, { bias });
    this.up_proj = new Linear(dims, hiddenDims, { bias });
    if (downLast) this.down_proj = new Linear(hiddenDims, dims, { bias });
    this.activation = activation;
  }

  /** x (…, dims) → (…, dims) */
  forward(x: Tensor): Tensor {
    const [gate, up] = project(x, [this.gate_proj, this.up_proj]) as [Tensor, Tensor];
    return this.down_proj.forward(this.activation(gate, up));
  }
}
