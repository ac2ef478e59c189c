/** Grouped-query attention whose layers have other names than most give them, with one projection ahead of it or three. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { attention, joinHeads, projectHeads, splitQueriesKeysValues } from "./attention";
import type { KeyValueCache } from "./cache";
import { type Layer, Linear } from "./linear";
import type { Mask } from "./masks";
import { Module } from "./module";
import { RMSNorm } from "./norms";
import { initializeRope, type RopeOptions, type RotaryEmbedding } from "./rope";
import { type Divisible, divideNamedHeads, type Split } from "./shard";

export interface NamedAttentionOptions {
  /** Features of the hidden states. */
  dims: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  /** How heads are rotated; null for no positions. */
  rope: RopeOptions | null;
  bias: boolean;
  /** Of the last projection; `bias` where absent. */
  outputBias?: boolean;
  /** What the checkpoint calls the projections: of queries, keys and values one by one, or of all in one. */
  inputs: readonly [queries: string, keys: string, values: string] | string;
  output: string;
  /** The order of the outputs of one projection: all queries first, or each head of keys with its queries ahead of it. */
  order?: "by kind" | "by group";
  /** Names of the norms over the heads of queries and keys, where there are any. */
  norms?: { queries: string; keys: string; eps: number };
  /** Scores of half precision outgrow it. */
  isWide?: boolean;
  /** Factor on the scores; 1/√headDim where absent. */
  scale?: number;
  /** Bound on either side of what one projection gives. */
  clip?: number | null;
}

type Heads = [q: Tensor, k: Tensor, v: Tensor];

export class NamedAttention extends Module implements Divisible {
  readonly rope: RotaryEmbedding | null;
  readonly heads: number;
  readonly kvHeads: number;

  constructor(readonly options: NamedAttentionOptions) {
    super();
    const { dims, heads, kvHeads, headDim, bias, outputBias = bias, inputs, output } = options;
    const linear = (count: number) => new Linear(dims, count * headDim, { bias });
    if (typeof inputs === "string") Object.assign(this, { [inputs]: linear(heads + 2 * kvHeads) });
    else inputs.forEach((name, i) => void Object.assign(this, { [name]: linear(i === 0 ? heads : kvHeads) }));
    Object.assign(this, { [output]: new Linear(heads * headDim, dims, { bias: outputBias }) });
    const { norms } = options;
    for (const name of norms ? [norms.queries, norms.keys] : []) {
      // Not assigned: two of these names have a getter in the class.
      const value = new RMSNorm(headDim, norms!.eps);
      Object.defineProperty(this, name, { value, enumerable: true, writable: true, configurable: true });
    }
    this.rope = options.rope && initializeRope(options.rope);
    this.heads = heads;
    this.kvHeads = kvHeads;
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const { headDim, output, isWide, scale = headDim ** -0.5 } = this.options;
    const [q, k, v] = this.#project(x, cache?.offset ?? 0);
    const wide = isWide ? q.astype("float32") : q;
    const out = attention(wide, k, v, { scale, mask, cache }).astype(x.dtype);
    return this.#at(output).forward(joinHeads(out));
  }

  shard(split: Split): void {
    const { inputs, output, order } = this.options;
    const share = divideNamedHeads(this, split, { inputs, output, order });
    if (share) Object.assign(this, share);
  }

  get q_norm(): RMSNorm | undefined {
    return this.#norm(this.options.norms?.queries);
  }

  get k_norm(): RMSNorm | undefined {
    return this.#norm(this.options.norms?.keys);
  }

  #norm(name: string | undefined): RMSNorm | undefined {
    return name === undefined ? undefined : (this as unknown as Record<string, RMSNorm>)[name];
  }

  #at(name: string): Layer {
    return (this as unknown as Record<string, Layer>)[name]!;
  }

  #project(x: Tensor, offset: number | Tensor): Heads {
    const { inputs, order = "by kind", clip } = this.options;
    if (typeof inputs !== "string") {
      const [queries, keys, values] = inputs.map((name) => this.#at(name)) as [Layer, Layer, Layer];
      return projectHeads(x, [queries, keys, values], this, offset);
    }
    const projected = this.#at(inputs).forward(x);
    const joint = clip ? mx.clip(projected, -clip, clip) : projected;
    if (order === "by kind") return splitQueriesKeysValues(joint, this, offset);
    const [batch, length] = x.shape as [number, number];
    const group = this.heads / this.kvHeads;
    const parts = joint.reshape(batch, length, this.kvHeads, group + 2, -1).split([group, group + 1], 3) as Heads;
    const [q, k, v] = parts.map((part) => part.flatten(2, 3).transpose(0, 2, 1, 3)) as Heads;
    const turned = (heads: Tensor) => this.rope?.forward(heads, offset) ?? heads;
    return [turned(q), turned(k), v];
  }
}
