/** The layer around the gated delta rule: Gated DeltaNet. Yang et al. 2024, arXiv:2412.06464. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { preciseSwiglu } from "./activations";
import type { ArraysCache } from "./cache";
import { CausalConv1d } from "./conv";
import { gatedDeltaRule, ofLength } from "./gated-delta";
import { type Layer, Linear } from "./linear";
import { Module, parameter } from "./module";
import { RMSNorm } from "./norms";
import { project } from "./projection";
import {
  behind,
  type Divisible,
  type HeadShare,
  isSliceable,
  keepChannels,
  keepOutputs,
  keepPlaces,
  type Range,
  type Split,
  SumOfParts,
  scaled,
  shareHeads,
} from "./shard";

export interface GatedDeltaSizes {
  dims: number;
  keyHeads: number;
  /** A multiple of the keys'. */
  valueHeads: number;
  /** Width of one head of keys, and of values. */
  keyDim: number;
  valueDim: number;
  /** Tokens that the convolution sees. */
  kernelSize: number;
  /** Of the norm. */
  eps: number;
  /** What the gate behind the norm passes; SiLU where absent. */
  gate?: "silu" | "sigmoid";
}

/** RMSNorm of each head, and a gate behind it. */
class GatedRMSNorm extends RMSNorm {
  constructor(
    dims: number,
    eps: number,
    readonly gate: "silu" | "sigmoid" = "silu",
  ) {
    super(dims, eps);
  }

  gated(x: Tensor, gate: Tensor): Tensor {
    const normed = this.forward(x);
    if (this.gate === "silu") return preciseSwiglu(gate, normed).astype(x.dtype);
    return normed.astype("float32").multiply(gate.astype("float32").sigmoid()).astype(x.dtype);
  }
}

/** −exp(A) · softplus(a + bias): the logarithm of what a token leaves of the state. */
export const decayOf = mx.compile(
  (A_log: Tensor, a: Tensor, bias: Tensor) =>
    A_log.astype("float32")
      .exp()
      .negative()
      .multiply(mx.logaddexp(a.add(bias), 0)),
  { shapeless: true },
);

/**
 * What a layer computes with: queries, keys and values side by side (B, T, C), the gate (B, T, Hv · Dv), the strength and
 * the decay ahead of their activations (B, T, Hv).
 */
type Projected = [entering: Tensor, gate: Tensor, strength: Tensor, decay: Tensor];

/** What the tokens before left, inputs of the convolution and the state; and which of those to come are a row's own. */
type Carried = [before: Tensor | null, state: Tensor | null, own: Tensor | null, lengths: readonly number[] | null];

/** Queries, keys and values through a short convolution and the gated delta rule, normalized and gated. */
export abstract class DeltaLayer extends Module implements Divisible {
  conv1d: CausalConv1d;
  // Declared only, so that they stand behind the projections: adapters draw their weights in the order of the layers.
  declare dt_bias: Tensor;
  declare A_log: Tensor;
  declare norm: GatedRMSNorm;
  declare out_proj: Layer;
  readonly keyHeads: number;
  readonly valueHeads: number;
  readonly keyDim: number;
  readonly valueDim: number;

  /** @param inputs makes the projections ahead of the convolution, by their names */
  constructor(
    { dims: D, keyHeads, valueHeads, keyDim, valueDim, kernelSize, eps, gate }: GatedDeltaSizes,
    inputs: () => Record<string, Layer>,
  ) {
    super();
    this.conv1d = new CausalConv1d(2 * keyHeads * keyDim + valueHeads * valueDim, kernelSize, { bias: false });
    Object.assign(this, inputs());
    this.dt_bias = parameter(mx.ones([valueHeads]));
    this.A_log = parameter(mx.scope(() => mx.random.uniform({ low: 0, high: 16, shape: [valueHeads] }).log()));
    this.norm = new GatedRMSNorm(valueDim, eps, gate);
    this.out_proj = new Linear(valueHeads * valueDim, D, { bias: false });
    this.keyHeads = keyHeads;
    this.valueHeads = valueHeads;
    this.keyDim = keyDim;
    this.valueDim = valueDim;
  }

  protected abstract project(x: Tensor): Projected;

  /** The outputs that some heads need of each projection. */
  protected abstract outputsOfHeads(share: HeadShare): readonly (readonly [Layer, readonly Range[]])[];

  /** Queries, keys and values of some heads where all of them lie side by side. */
  protected sideBySide({ queries: values, keys }: HeadShare): Range[] {
    const { keyHeads, keyDim, valueDim } = this;
    const own = scaled(keys, keyDim);
    return [own, behind(keyHeads * keyDim, own), behind(2 * keyHeads * keyDim, scaled(values, valueDim))];
  }

  /** Leaves a rank's heads of values, and those of keys that they belong to. */
  shard(split: Split): void {
    const share = shareHeads(this.valueHeads, this.keyHeads, split);
    const { out_proj: last } = this;
    const outputs = this.outputsOfHeads(share);
    if (!isSliceable(last) || !outputs.every(([layer]) => isSliceable(layer))) return;
    for (const [layer, pieces] of outputs) if (isSliceable(layer)) keepOutputs(layer, pieces);
    keepChannels(this.conv1d, this.sideBySide(share));
    keepPlaces(this, ["dt_bias", "A_log"], 0, [share.queries]);
    this.out_proj = new SumOfParts(last as never, scaled(share.queries, this.valueDim), split, share);
    const [valueHeads, keyHeads] = [share.queries, share.keys].map(([start, end]) => end - start);
    Object.assign(this, { valueHeads, keyHeads });
  }

  /** x (B, T, D), own (B, T): which tokens are a row's own → (B, T, D) */
  forward(x: Tensor, own: Tensor | null, cache?: ArraysCache): Tensor {
    const length = x.dim(1);
    const projected = this.project(x);
    const before = cache?.get(0) ?? null;
    const state = cache?.get(1) ?? null;
    const lengths = cache?.lengthsWithin(length) ?? null;
    const [out, recent, after] =
      this.#atOnce(projected, before, state, own, lengths) ??
      this.#byOperations(projected, before, state, own, lengths);
    cache?.put(0, recent);
    cache?.put(1, after);
    cache?.advance(length);
    return this.out_proj.forward(out);
  }

  /** In one call for all of it, where there are kernels. */
  #atOnce([entering, gate, strength, decay]: Projected, ...rest: Carried): Triple | null {
    const [before, state, own, lengths] = rest;
    const { A_log: rates, dt_bias: decayBias, keyHeads, norm } = this;
    if (norm.gate !== "silu") return null;
    return mx.fast.deltaLayer({
      ...{ entering, gate, strength, decay, rates, decayBias, keyHeads },
      ...{ convWeight: this.conv1d.weight, normWeight: norm.weight, eps: norm.eps },
      ...{ before, state, own, lengths },
    });
  }

  #byOperations([entering, z, b, a]: Projected, ...rest: Carried): Triple {
    const [before, carried, own, lengths] = rest;
    const [batch, length] = entering.shape as [number, number, number];
    const { keyHeads, valueHeads, keyDim, valueDim } = this;
    const keys = keyHeads * keyDim;
    const [convolved, recent] = this.conv1d.forward(entering, { before, own, lengths, silu: true });
    const [q, k, v] = convolved.split([keys, 2 * keys], -1) as Triple;
    const perKeyHead = (part: Tensor) => part.reshape(batch, length, keyHeads, keyDim);
    const inputs = {
      q: ofLength(perKeyHead(q), keyDim ** -0.5),
      k: ofLength(perKeyHead(k), 1),
      v: v.reshape(batch, length, valueHeads, valueDim),
      strength: b.sigmoid(),
      decay: decayOf(this.A_log, a, this.dt_bias),
    };
    const [y, state] = gatedDeltaRule(inputs, carried, own);
    const out = this.norm.gated(y, z.reshape(batch, length, valueHeads, valueDim));
    return [out.reshape(batch, length, valueHeads * valueDim), recent, state];
  }
}

/** With a projection for each input of the rule. */
export class GatedDeltaNet extends DeltaLayer {
  declare in_proj_qkv: Layer;
  declare in_proj_z: Layer;
  declare in_proj_b: Layer;
  declare in_proj_a: Layer;

  constructor(sizes: GatedDeltaSizes) {
    const { dims: D, keyHeads, valueHeads, keyDim, valueDim } = sizes;
    super(sizes, () => ({
      in_proj_qkv: new Linear(D, 2 * keyHeads * keyDim + valueHeads * valueDim, { bias: false }),
      in_proj_z: new Linear(D, valueHeads * valueDim, { bias: false }),
      in_proj_b: new Linear(D, valueHeads, { bias: false }),
      in_proj_a: new Linear(D, valueHeads, { bias: false }),
    }));
  }

  protected override outputsOfHeads(share: HeadShare) {
    return [
      [this.in_proj_qkv, this.sideBySide(share)],
      [this.in_proj_z, [scaled(share.queries, this.valueDim)]],
      [this.in_proj_b, [share.queries]],
      [this.in_proj_a, [share.queries]],
    ] as const;
  }

  protected override project(x: Tensor): Projected {
    return project(x, [this.in_proj_qkv, this.in_proj_z, this.in_proj_b, this.in_proj_a]) as Projected;
  }
}

/** With two projections, whose outputs lie by heads of keys: a head's query, key, values and gates, then the next's. */
export class GroupedDeltaNet extends DeltaLayer {
  declare in_proj_qkvz: Layer;
  declare in_proj_ba: Layer;

  constructor(sizes: GatedDeltaSizes) {
    const { dims: D, keyHeads, valueHeads, keyDim, valueDim } = sizes;
    super(sizes, () => ({
      in_proj_qkvz: new Linear(D, 2 * keyHeads * keyDim + 2 * valueHeads * valueDim, { bias: false }),
      in_proj_ba: new Linear(D, 2 * valueHeads, { bias: false }),
    }));
  }

  protected override outputsOfHeads({ queries: own, keys }: HeadShare) {
    const { keyHeads, valueHeads, keyDim, valueDim } = this;
    const each = valueHeads / keyHeads;
    const heads = Array.from({ length: keys[1] - keys[0] }, (_, i) => keys[0] + i);
    /** A head's values that are this rank's, from the head's first on. */
    const valuesOf = (head: number): Range => [Math.max(own[0] - head * each, 0), Math.min(own[1] - head * each, each)];
    const joint = heads.flatMap((head) => {
      const first = head * (2 * keyDim + 2 * each * valueDim);
      const values = scaled(valuesOf(head), valueDim);
      const ahead = first + 2 * keyDim;
      return [[first, ahead] as const, behind(ahead, values), behind(ahead + each * valueDim, values)];
    });
    const byValue = heads.flatMap((head) => {
      const values = valuesOf(head);
      return [behind(2 * head * each, values), behind((2 * head + 1) * each, values)];
    });
    return [
      [this.in_proj_qkvz, joint],
      [this.in_proj_ba, byValue],
    ] as const;
  }

  protected override project(x: Tensor): Projected {
    const { keyHeads, valueHeads, keyDim, valueDim } = this;
    const values = (valueHeads / keyHeads) * valueDim;
    const byHead = (part: Tensor) => part.unflatten(-1, [keyHeads, -1]);
    const flat = (part: Tensor) => part.flatten(-2);
    const [qkvz, ba] = project(x, [this.in_proj_qkvz, this.in_proj_ba]) as [Tensor, Tensor];
    const [q, k, v, z] = byHead(qkvz)
      .split([keyDim, 2 * keyDim, 2 * keyDim + values], -1)
      .map(flat) as Four;
    const [b, a] = byHead(ba).split(2, -1).map(flat) as [Tensor, Tensor];
    return [mx.concatenate([q, k, v], { axis: -1 }), z, b, a];
  }
}

type Triple = [Tensor, Tensor, Tensor];
type Four = [Tensor, Tensor, Tensor, Tensor];
