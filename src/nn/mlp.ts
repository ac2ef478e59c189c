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
}

/** down(activation(gate(x), up(x))). Shazeer 2020, arXiv:2002.05202. */
export class GatedMLP extends Module {
  gate_proj: Layer;
  down_proj: Layer;
  up_proj: Layer;
  readonly activation: (gate: Tensor, x: Tensor) => Tensor;

  constructor(dims: number, hiddenDims: number, { bias = false, activation = swiglu }: GatedMLPOptions = {}) {
    super();
    this.gate_proj = new Linear(dims, hiddenDims, { bias });
    this.down_proj = new Linear(hiddenDims, dims, { bias });
    this.up_proj = new Linear(dims, hiddenDims, { bias });
    this.activation = activation;
  }

  /** x (…, dims) → (…, dims) */
  forward(x: Tensor): Tensor {
    const [gate, up] = project(x, [this.gate_proj, this.up_proj]) as [Tensor, Tensor];
    return this.down_proj.forward(this.activation(gate, up));
  }
}
