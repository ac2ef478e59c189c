/** The layer around Mamba-2's selective state space. Dao & Gu 2024, arXiv:2405.21060, figure 6. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { silu, swiglu } from "./activations";
import type { ArraysCache } from "./cache";
import { CausalConv1d } from "./conv";
import { type Layer, Linear } from "./linear";
import { Module, parameter } from "./module";
import { GroupedRMSNorm } from "./norms";
import { selectiveStateSpace } from "./state-space";

export interface Mamba2Sizes {
  dims: number;
  heads: number;
  headDim: number;
  /** Groups of heads that share what enters the state and what reads it; they divide the heads. */
  groups: number;
  /** Width of a head's state, beside its own. */
  stateSize: number;
  /** Tokens that the convolution sees. */
  kernelSize: number;
}

export interface Mamba2Options {
  /** Whether the projections have biases, the last one's own where it differs, and the convolution's. */
  bias: boolean;
  outputBias?: boolean;
  convBias: boolean;
  /** Bounds of the step sizes. */
  limits: readonly [min: number, max: number];
  /** How results are normalized and gated; gated only where absent. */
  norm?: GatedNorm;
}

export interface GatedNorm extends Module {
  /** x and gate (B, T, H · P) → (B, T, H · P) */
  gated(x: Tensor, gate: Tensor): Tensor;
}

/** RMSNorm of gated values, all together or each group by itself. */
export class GatedRMSNorm extends GroupedRMSNorm implements GatedNorm {
  gated(x: Tensor, gate: Tensor): Tensor {
    return this.forward(swiglu(gate, x));
  }
}

/** A short convolution, the state space, and a gate. */
export class Mamba2Mixer extends Module {
  conv1d: CausalConv1d;
  in_proj: Layer;
  dt_bias: Tensor;
  A_log: Tensor;
  D: Tensor;
  norm?: GatedNorm;
  out_proj: Layer;
  readonly limits: readonly [number, number];

  constructor(
    readonly sizes: Mamba2Sizes,
    { bias, outputBias = bias, convBias, limits, norm }: Mamba2Options,
  ) {
    super();
    const { dims, heads, headDim, groups, stateSize, kernelSize } = sizes;
    const inner = heads * headDim;
    const convolved = inner + 2 * groups * stateSize;
    this.conv1d = new CausalConv1d(convolved, kernelSize, { bias: convBias });
    this.in_proj = new Linear(dims, inner + convolved + heads, { bias });
    this.dt_bias = parameter(mx.ones([heads]));
    this.A_log = parameter(mx.scope(() => mx.arange(1, heads + 1, 1, { dtype: "float32" }).log()));
    this.D = parameter(mx.ones([heads]));
    if (norm) this.norm = norm;
    this.out_proj = new Linear(inner, dims, { bias: outputBias });
    this.limits = limits;
  }

  /** x (B, T, D), own (B, T): which tokens are a row's own → (B, T, D) */
  forward(x: Tensor, own: Tensor | null, cache?: ArraysCache): Tensor {
    const [batch, length] = x.shape as [number, number, number];
    const { heads, headDim, groups, stateSize } = this.sizes;
    const inner = heads * headDim;
    const [gate, entering, dt] = this.in_proj.forward(x).split([inner, inner + this.conv1d.channels], -1) as Triple;

    const kept = own ? mx.where(own.expandDims(-1), entering, 0) : entering;
    const [convolved, recent] = this.conv1d.forward(kept, cache?.get(0) ?? null, cache?.lengthsWithin(length));
    const [hidden, B, C] = silu(convolved).split([inner, inner + groups * stateSize], -1) as Triple;
    const grouped = (part: Tensor) => part.reshape(batch, length, groups, stateSize);
    const [y, state] = selectiveStateSpace(
      { x: hidden.reshape(batch, length, heads, headDim), B: grouped(B), C: grouped(C), dt },
      this,
      cache?.get(1) ?? null,
      own,
    );
    cache?.put(0, recent);
    cache?.put(1, state);
    cache?.advance(length);
    const flat = y.reshape(batch, length, inner);
    return this.out_proj.forward(this.norm ? this.norm.gated(flat, gate) : swiglu(gate, flat));
  }
}

type Triple = [Tensor, Tensor, Tensor];
