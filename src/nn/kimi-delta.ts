/** Kimi delta attention: the delta rule with a decay for each channel. Kimi Team 2025, arXiv:2510.26692. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { ArraysCache } from "./cache";
import { channelDeltaRule } from "./channel-delta";
import { CausalConv1d } from "./conv";
import { ofLength } from "./gated-delta";
import { type Layer, Linear } from "./linear";
import { Module, parameter } from "./module";
import { RMSNorm } from "./norms";
import { project } from "./projection";
import {
  behind,
  type Divisible,
  isSliceable,
  keepChannels,
  keepOutputs,
  keepPlaces,
  outputsOf,
  type Range,
  type Split,
  SumOfParts,
  scaled,
  shareHeads,
} from "./shard";

export interface KimiDeltaSizes {
  dims: number;
  heads: number;
  headDim: number;
  /** Of the norm. */
  eps: number;
}

/** What these give is for all heads, and thin. */
const thinLayers = ["f_a_proj", "g_a_proj"];

/** What the models share; their names of convolutions and of the projections to decays and gates are their own. */
export abstract class KimiDelta extends Module implements Divisible {
  // Declared only, so that it stands with the projections ahead of the others: adapters draw their weights in that order.
  declare b_proj: Layer;
  /** The logarithm of each head's decay rate, in a shape with H entries. */
  A_log: Tensor;
  /** (H · D) */
  dt_bias: Tensor;
  o_norm: RMSNorm;
  o_proj: Layer;

  /** @param inputs makes the layers that take hidden states, `b_proj` (dims → heads) among them, by their names */
  constructor(
    readonly sizes: KimiDeltaSizes,
    rateShape: readonly number[],
    inputs: () => Record<string, Module>,
  ) {
    super();
    const { dims, heads, headDim, eps } = sizes;
    const inner = heads * headDim;
    Object.assign(this, inputs());
    this.A_log = parameter(mx.scope(() => mx.random.uniform({ low: 1, high: 16, shape: rateShape }).log()));
    this.dt_bias = parameter(mx.zeros([inner]));
    this.o_norm = new RMSNorm(headDim, eps);
    this.o_proj = new Linear(inner, dims, { bias: false });
  }

  /** Which of the cache's arrays is the state of the rule: the last. */
  abstract readonly stateAt: number;

  /** Queries, keys and values through convolutions and SiLU: x (B, T, D) → (B, T, H · headDim) each. Their own arrays of the cache are put. */
  protected abstract convolved(x: Tensor, own: Tensor | null, cache?: ArraysCache): [q: Tensor, k: Tensor, v: Tensor];

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

  /** Leaves a rank's heads. */
  shard(split: Split): void {
    const { heads, headDim } = this.sizes;
    const { o_proj: last } = this;
    const inner = heads * headDim;
    const layers = this.children().filter(
      ([name, part]) => isLayer(part) && name !== "o_proj" && !thinLayers.includes(name),
    );
    if (!isSliceable(last) || !layers.every(([, layer]) => isSliceable(layer))) return;
    const share = shareHeads(heads, heads, split);
    const own = scaled(share.queries, headDim);
    /** Of one kind after the other, as many as there are. */
    const kinds = (count: number): Range[] =>
      Array.from({ length: count / inner }, (_, kind) => behind(kind * inner, own));
    for (const [name, layer] of layers) {
      if (isSliceable(layer)) keepOutputs(layer, name === "b_proj" ? [share.queries] : kinds(outputsOf(layer)));
    }
    for (const [, part] of this.namedModules())
      if (part instanceof CausalConv1d) keepChannels(part, kinds(part.channels));
    keepPlaces(this, ["A_log"], this.A_log.shape.indexOf(heads), [share.queries]);
    keepPlaces(this, ["dt_bias"], 0, [own]);
    this.o_proj = new SumOfParts(last as never, own, split, share);
    Object.assign(this, { sizes: { ...this.sizes, heads: share.queries[1] - share.queries[0] } });
  }

  /** x (B, T, D), own (B, T): which tokens are a row's own → (B, T, D) */
  forward(x: Tensor, own: Tensor | null, cache?: ArraysCache): Tensor {
    const [batch, length] = x.shape as [number, number, number];
    const { heads, headDim } = this.sizes;
    const byHead = (part: Tensor) => part.reshape(batch, length, heads, headDim);
    const [q, k, v] = this.convolved(x, own, cache).map(byHead) as [Tensor, Tensor, Tensor];

    const strength = this.strength(x).astype("float32");
    const fading = byHead(this.fading(x)).add(this.dt_bias.reshape(heads, headDim));
    const rates = this.A_log.astype("float32").exp().reshape(heads, 1);
    const decay = this.decay(fading, rates);
    const [y, state] = kimiDeltaRule(q, k, v, strength, decay, cache?.get(this.stateAt) ?? null, own);
    cache?.put(this.stateAt, state);
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

/** Whether a part is a projection: what is neither a convolution nor a norm. */
const isLayer = (part: Module) =>
  !(part instanceof RMSNorm) && !part.namedModules().some(([, one]) => one instanceof CausalConv1d);

/** x (B, T, C) through a convolution and SiLU; what it looks back at is the cache's array `index`. */
export function convolve(
  convolution: CausalConv1d,
  x: Tensor,
  own: Tensor | null,
  cache: ArraysCache | undefined,
  index: number,
): Tensor {
  const lengths = cache?.lengthsWithin(x.dim(1));
  const [convolved, recent] = convolution.forward(x, { before: cache?.get(index), own, lengths, silu: true });
  cache?.put(index, recent);
  return convolved;
}

/** With a projection and a convolution for each of queries, keys and values. */
export abstract class KimiDeltaAttention extends KimiDelta {
  declare q_proj: Layer;
  declare k_proj: Layer;
  declare v_proj: Layer;
  readonly stateAt = 3;

  constructor(sizes: KimiDeltaSizes, rateShape: readonly number[]) {
    const { dims, heads, headDim } = sizes;
    super(sizes, rateShape, () => ({
      q_proj: new Linear(dims, heads * headDim, { bias: false }),
      k_proj: new Linear(dims, heads * headDim, { bias: false }),
      v_proj: new Linear(dims, heads * headDim, { bias: false }),
      b_proj: new Linear(dims, heads, { bias: false }),
    }));
  }

  /** Of queries, keys and values. */
  protected abstract convolutions(): readonly [CausalConv1d, CausalConv1d, CausalConv1d];

  protected override convolved(x: Tensor, own: Tensor | null, cache?: ArraysCache): [Tensor, Tensor, Tensor] {
    const entering = project(x, [this.q_proj, this.k_proj, this.v_proj]);
    const through = this.convolutions().map((one, i) => convolve(one, entering[i]!, own, cache, i));
    return through as [Tensor, Tensor, Tensor];
  }
}

/** q, k, v and decay (B, T, H, D), strength (B, T, H): queries and keys are stretched to length one first. */
function kimiDeltaRule(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  strength: Tensor,
  decay: Tensor,
  state: Tensor | null,
  own: Tensor | null,
): [y: Tensor, state: Tensor] {
  const queryLength = q.dim(-1) ** -0.5;
  const lengths = { queryLength, keyLength: 1 };
  const made = mx.fast.recurrence({ queries: q, keys: k, values: v, decay, strength, state, own, ...lengths });
  if (made) return made;
  const keys = ofLength(k, 1);
  const column = strength.expandDims(-1);
  const a = keys.multiply(column).negative();
  return channelDeltaRule({ r: ofLength(q, queryLength), k: keys, v: v.multiply(column), a, decay }, state, own);
}
