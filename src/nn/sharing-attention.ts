/** Attention of layers that share their keys and values (Gemma 3n, Gemma 4). */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { attendTo, joinHeads, projectHeads, splitHeads } from "./attention";
import type { KeyValueCache } from "./cache";
import { type Layer, Linear } from "./linear";
import type { Mask } from "./masks";
import { Module } from "./module";
import { RMSNorm } from "./norms";
import { initializeRope, type RopeOptions, type RotaryEmbedding } from "./rope";
import { type Divisible, divideHeads, type Split } from "./shard";
import type { SharedRows } from "./shared-rows";

export interface SharingAttentionSizes {
  /** Width of the hidden states. */
  dims: number;
  heads: number;
  kvHeads: number;
  eps: number;
  /** It turns whole heads: its `dims` are a head's width. */
  rope: RopeOptions;
  /** Whether it has keys and values of its own. */
  owns: boolean;
  /** Whether these values are the keys, ahead of their norm. */
  valuesAreKeys?: boolean;
}

/** Queries, keys and values are normed, values without a gain; scores have no factor. */
export class SharingAttention extends Module implements Divisible {
  q_proj: Layer;
  k_proj?: Layer;
  v_proj?: Layer;
  o_proj: Layer;
  q_norm: RMSNorm;
  k_norm?: RMSNorm;
  readonly rope: RotaryEmbedding;
  readonly heads: number;
  readonly kvHeads: number;
  readonly eps: number;

  constructor({ dims, heads, kvHeads, eps, rope, owns, valuesAreKeys = false }: SharingAttentionSizes) {
    super();
    const linear = (inputs: number, outputs: number) => new Linear(inputs, outputs, { bias: false });
    this.q_proj = linear(dims, heads * rope.dims);
    if (owns) this.k_proj = linear(dims, kvHeads * rope.dims);
    if (owns && !valuesAreKeys) this.v_proj = linear(dims, kvHeads * rope.dims);
    this.o_proj = linear(heads * rope.dims, dims);
    this.q_norm = new RMSNorm(rope.dims, eps);
    if (owns) this.k_norm = new RMSNorm(rope.dims, eps);
    this.rope = initializeRope(rope);
    this.heads = heads;
    this.kvHeads = kvHeads;
    this.eps = eps;
  }

  /** x (B, T, D) → (B, T, D), and what the queries attended to: another layer's `rows`, or its own. */
  forward(x: Tensor, mask: Mask, cache?: KeyValueCache, rows?: SharedRows): [out: Tensor, rows: SharedRows] {
    const [q, attended] = this.k_proj ? this.#withOwnRows(x, cache) : [this.#queries(x, rows!.offset), rows!];
    const out = attendTo(q, attended.keys, attended.values, { scale: 1, mask });
    return [this.o_proj.forward(joinHeads(out)), attended];
  }

  shard(split: Split): void {
    divideHeads(this, split);
  }

  #queries(x: Tensor, offset: number | Tensor): Tensor {
    return this.rope.forward(this.q_norm.forward(splitHeads(this.q_proj.forward(x), this.heads)), offset);
  }

  #withOwnRows(x: Tensor, cache?: KeyValueCache): [q: Tensor, rows: SharedRows] {
    const offset = cache?.offset ?? 0;
    const [q, k, values] = this.#project(x, offset);
    const v = mx.fast.rmsNorm(values, null, this.eps);
    const [keys, all] = cache?.update(k, v) ?? [k, v];
    return [q, { keys, values: all, offset }];
  }

  #project(x: Tensor, offset: number | Tensor): [q: Tensor, k: Tensor, v: Tensor] {
    const { q_proj, k_proj, v_proj } = this;
    if (v_proj) return projectHeads(x, [q_proj, k_proj!, v_proj], this, offset);
    const keys = splitHeads(k_proj!.forward(x), this.kvHeads);
    return [this.#queries(x, offset), this.rope.forward(this.k_norm!.forward(keys), offset), keys];
  }
}
