/** The layer around Mamba-2's selective state space. Dao & Gu 2024, arXiv:2405.21060, figure 6. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { swiglu } from "./activations";
import type { ArraysCache } from "./cache";
import { CausalConv1d } from "./conv";
import { type Layer, Linear } from "./linear";
import { Module, parameter } from "./module";
import { GroupedRMSNorm } from "./norms";
import {
  behind,
  type Divisible,
  type HeadShare,
  isSliceable,
  keepChannels,
  keepOutputs,
  keepPlaces,
  RMSNormOfParts,
  type Split,
  SumOfParts,
  scaled,
  shareHeads,
} from "./shard";
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
  /** Whether `gated` is the norm of silu(gate) · x, not gated behind it. */
  readonly gatesFirst: boolean;
  forward(x: Tensor): Tensor;
  /** x and gate (B, T, H · P) → (B, T, H · P) */
  gated(x: Tensor, gate: Tensor): Tensor;
}

/** RMSNorm of gated values, all together or each group by itself. */
export class GatedRMSNorm extends GroupedRMSNorm implements GatedNorm {
  readonly gatesFirst: boolean = true;

  gated(x: Tensor, gate: Tensor): Tensor {
    return this.forward(swiglu(gate, x));
  }
}

/** The same where ranks have parts of what is normalized together. */
class GatedNormOfParts extends RMSNormOfParts implements GatedNorm {
  gatesFirst = true;

  gated(x: Tensor, gate: Tensor): Tensor {
    return this.gatesFirst ? this.forward(swiglu(gate, x)) : swiglu(gate, this.forward(x));
  }
}

/** A short convolution, the state space, and a gate. */
export class Mamba2Mixer extends Module implements Divisible {
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

  /** Leaves a rank's heads, and the groups that they belong to. */
  shard(split: Split): void {
    const { in_proj: first, out_proj: last, norm } = this;
    const { heads, headDim, groups, stateSize } = this.sizes;
    const share = shareHeads(heads, groups, split);
    const isKnown = !norm || (norm instanceof GatedRMSNorm && [1, groups].includes(norm.groups));
    if (!isKnown || !isSliceable(first) || !isSliceable(last)) return;
    const inner = heads * headDim;
    const own = scaled(share.queries, headDim);
    const grouped = behind(inner, scaled(share.keys, stateSize));
    const convolved = [own, grouped, behind(groups * stateSize, grouped)];
    const steps = behind(2 * inner + 2 * groups * stateSize, share.queries);
    keepOutputs(first, [own, ...convolved.map((piece) => behind(inner, piece)), steps]);
    keepChannels(this.conv1d, convolved);
    keepPlaces(this, ["dt_bias", "A_log", "D"], 0, [share.queries]);
    if (norm) this.#divideNorm(norm as GatedRMSNorm, share, split);
    this.out_proj = new SumOfParts(last as never, own, split, share);
    const [ownHeads, ownGroups] = [share.queries, share.keys].map(([start, end]) => end - start);
    Object.assign(this, { sizes: { ...this.sizes, heads: ownHeads, groups: ownGroups } });
  }

  /** Groups that are whole on each rank need no other's features. */
  #divideNorm(norm: GatedRMSNorm, share: HeadShare, split: Split): void {
    const own = scaled(share.queries, this.sizes.headDim);
    if (norm.groups > 1 && norm.groups >= split.size) {
      keepPlaces(norm, ["weight"], 0, [own]);
      Object.assign(norm, { groups: share.keys[1] - share.keys[0] });
      return;
    }
    const { gatesFirst, groups } = norm;
    const grouped = {
      share: share.counts ? 1 : 0,
      groups: { count: groups, own: groups > 1 ? share.keys : ([0, 1] as const) },
    };
    this.norm = Object.assign(new GatedNormOfParts(norm, own, split, grouped), { gatesFirst });
  }

  /** x (B, T, D), own (B, T): which tokens are a row's own → (B, T, D) */
  forward(x: Tensor, own: Tensor | null, cache?: ArraysCache): Tensor {
    const length = x.dim(1);
    const inner = this.sizes.heads * this.sizes.headDim;
    const [gate, entering, dt] = this.in_proj.forward(x).split([inner, inner + this.conv1d.channels], -1) as Triple;

    const lengths = cache?.lengthsWithin(length);
    const [mixed, recent] = this.conv1d.forward(entering, { before: cache?.get(0), own, lengths, silu: true });
    const [y, state] = this.#stateSpace({ mixed, dt, gate, own }, cache?.get(1) ?? null);
    cache?.put(0, recent);
    cache?.put(1, state);
    cache?.advance(length);
    return this.out_proj.forward(y);
  }

  /** The state space, its gate and its norm: [(B, T, H · P), state]. In one call for the first two where there is a kernel. */
  #stateSpace({ mixed, dt, gate, own }: Convolved, before: Tensor | null): [y: Tensor, state: Tensor] {
    const [batch, length] = mixed.shape as [number, number, number];
    const { heads, headDim, groups, stateSize } = this.sizes;
    const inner = heads * headDim;
    const { A_log: rates, D: passing, dt_bias: stepBias, limits, norm } = this;
    const gatesFirst = norm?.gatesFirst ?? true;
    const made = mx.fast.stateSpace({
      ...{ mixed, steps: dt, rates, passing, stepBias, limits, groups, headDim, own },
      gate: gatesFirst ? gate : null,
      state: before,
    });
    if (made) {
      const [y, state] = made;
      if (!norm) return made;
      return [gatesFirst ? norm.forward(y) : norm.gated(y, gate), state];
    }
    const [hidden, B, C] = mixed.split([inner, inner + groups * stateSize], -1) as Triple;
    const grouped = (part: Tensor) => part.reshape(batch, length, groups, stateSize);
    const [y, state] = selectiveStateSpace(
      { x: hidden.reshape(batch, length, heads, headDim), B: grouped(B), C: grouped(C), dt },
      this,
      before,
      own,
    );
    const flat = y.reshape(batch, length, inner);
    return [norm ? norm.gated(flat, gate) : swiglu(gate, flat), state];
  }
}

interface Convolved {
  /** x, B and C, (B, T, H · P + 2 · G · N) */
  mixed: Tensor;
  /** Step sizes, (B, T, H) */
  dt: Tensor;
  /** (B, T, H · P) */
  gate: Tensor;
  own: Tensor | null;
}

type Triple = [Tensor, Tensor, Tensor];
