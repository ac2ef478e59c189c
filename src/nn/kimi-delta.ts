/** Kimi delta attention: the delta rule with a decay for each channel. Kimi Team 2025, arXiv:2510.26692. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { silu } from "./activations";
import type { ArraysCache } from "./cache";
import { channelDeltaRule } from "./channel-delta";
import type { CausalConv1d } from "./conv";
import { ofLength } from "./gated-delta";
import { type Layer, Linear } from "./linear";
import { Module, parameter } from "./module";
import { RMSNorm } from "./norms";
import { project } from "./projection";

export interface KimiDeltaSizes {
  dims: number;
  heads: number;
  headDim: number;
  /** Of the norm. */
  eps: number;
}

/** What the models share; their names of convolutions and of the projections to decays and gates are their own. */
export abstract class KimiDeltaAttention extends Module {
  q_proj: Layer;
  k_proj: Layer;
  v_proj: Layer;
  b_proj: Layer;
  /** The logarithm of each head's decay rate, in a shape with H entries. */
  A_log: Tensor;
  /** (H · D) */
  dt_bias: Tensor;
  o_norm: RMSNorm;
  o_proj: Layer;

  constructor(
    readonly sizes: KimiDeltaSizes,
    rateShape: readonly number[],
  ) {
    super();
    const { dims, heads, headDim, eps } = sizes;
    const inner = heads * headDim;
    this.q_proj = new Linear(dims, inner, { bias: false });
    this.k_proj = new Linear(dims, inner, { bias: false });
    this.v_proj = new Linear(dims, inner, { bias: false });
    this.b_proj = new Linear(dims, heads, { bias: false });
    this.A_log = parameter(mx.scope(() => mx.random.uniform({ low: 1, high: 16, shape: rateShape }).log()));
    this.dt_bias = parameter(mx.zeros([inner]));
    this.o_norm = new RMSNorm(headDim, eps);
    this.o_proj = new Linear(inner, dims, { bias: false });
  }

  /** Of queries, keys and values. */
  protected abstract convolutions(): readonly [CausalConv1d, CausalConv1d, CausalConv1d];

  /** What each channel's decay is made from: x (B, T, D) → (B, T, H · headDim) */
  protected abstract fading(x: Tensor): Tensor;

  /** What results pass through a sigmoid of: x (B, T, D) → (B, T, H · headDim) */
  protected abstract gates(x: Tensor): Tensor;

  /** How much of the old is written over, from 0 to 1: x (B, T, D) → (B, T, H) */
  protected strength(x: Tensor): Tensor {
    return this.b_proj.forward(x).sigmoid();
  }

  /** The logarithm of what is left of each channel, from `fading` with its bias (B, T, H, headDim) and rates (H, 1). */
  protected decay(fading: Tensor, rates: Tensor): Tensor {
    return rates.negative().multiply(mx.logaddexp(fading, 0));
  }

  /** x (B, T, D), own (B, T): which tokens are a row's own → (B, T, D) */
  forward(x: Tensor, own: Tensor | null, cache?: ArraysCache): Tensor {
    const [batch, length] = x.shape as [number, number, number];
    const { heads, headDim } = this.sizes;
    const byHead = (part: Tensor) => part.reshape(batch, length, heads, headDim);
    const lengths = cache?.lengthsWithin(length);
    const entering = project(x, [this.q_proj, this.k_proj, this.v_proj]);
    const [q, k, v] = this.convolutions().map((convolution, i) => {
      const kept = own ? mx.where(own.expandDims(-1), entering[i]!, 0) : entering[i]!;
      const [convolved, recent] = convolution.forward(kept, cache?.get(i) ?? null, lengths);
      cache?.put(i, recent);
      return byHead(silu(convolved));
    }) as [Tensor, Tensor, Tensor];

    const keys = ofLength(k, 1);
    const strength = this.strength(x).astype("float32").expandDims(-1);
    const fading = byHead(this.fading(x)).add(this.dt_bias.reshape(heads, headDim));
    const rates = this.A_log.astype("float32").exp().reshape(heads, 1);
    const inputs = {
      r: ofLength(q, headDim ** -0.5),
      k: keys,
      v: v.multiply(strength),
      a: keys.multiply(strength).negative(),
      decay: this.decay(fading, rates),
    };
    const [y, state] = channelDeltaRule(inputs, cache?.get(3) ?? null, own);
    cache?.put(3, state);
    cache?.advance(length);
    const gates = byHead(this.gates(x)).sigmoid().astype(x.dtype);
    return this.o_proj.forward(
      this.o_norm
        .forward(y)
        .multiply(gates)
        .reshape(batch, length, heads * headDim),
    );
  }
}
