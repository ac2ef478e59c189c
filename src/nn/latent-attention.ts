/**
 * Multi-head latent attention: keys and values of all heads come from one small vector a token, which is all that the cache
 * holds beside a rotated key that the heads share. DeepSeek-AI 2024, arXiv:2405.04434, section 2.1.
 */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { attention, joinHeads, splitHeads } from "./attention";
import { type KeyValueCache, QuantizedRows } from "./cache";
import type { Rows } from "./cache/rows";
import { type Layer, Linear } from "./linear";
import type { Mask } from "./masks";
import { Module } from "./module";
import { type HeadLayer, MultiLinear } from "./multi-linear";
import { RMSNorm } from "./norms";
import { project } from "./projection";
import type { RotaryEmbedding } from "./rope";

export interface LatentAttentionSizes {
  /** Features of the hidden states. */
  dims: number;
  heads: number;
  /** Width of the queries' own latent vector; null: they are projected at once. */
  queryRank: number | null;
  /** Width of the latent vector of keys and values. */
  rank: number;
  /** Features of a head's query and key that are not rotated, and that are. */
  plainDims: number;
  rotatedDims: number;
  valueDims: number;
  /** Biases of the projections that take and give hidden states. */
  bias: boolean;
  /** Of the norms of latent vectors; 10⁻⁶ where absent. */
  eps?: number;
}

/** Projections of the hidden states that may run as one. */
export const latentJoins = [["q_a_proj", "kv_a_proj_with_mqa"]];

/** All of it but the last projection. */
export class LatentHeads extends Module {
  q_proj?: Layer;
  q_a_proj?: Layer;
  q_a_layernorm?: RMSNorm;
  q_b_proj?: Layer;
  kv_a_proj_with_mqa: Layer;
  kv_a_layernorm: RMSNorm;
  /** From the plain features of a head's query to the latent space: what keys would be unpacked by. */
  embed_q: HeadLayer;
  /** From the latent space to a head's values. */
  unembed_out: HeadLayer;

  /** @param rope null where nothing has positions (NoPE) */
  constructor(
    readonly sizes: LatentAttentionSizes,
    readonly rope: RotaryEmbedding | null,
    readonly scale: number,
  ) {
    super();
    const { dims, heads, queryRank, rank, plainDims, rotatedDims, valueDims, bias, eps = 1e-6 } = sizes;
    const queryDims = heads * (plainDims + rotatedDims);
    if (queryRank === null) {
      this.q_proj = new Linear(dims, queryDims, { bias: false });
    } else {
      this.q_a_proj = new Linear(dims, queryRank, { bias });
      this.q_a_layernorm = new RMSNorm(queryRank, eps);
      this.q_b_proj = new Linear(queryRank, queryDims, { bias: false });
    }
    this.kv_a_proj_with_mqa = new Linear(dims, rank + rotatedDims, { bias });
    this.kv_a_layernorm = new RMSNorm(rank, eps);
    this.embed_q = new MultiLinear(plainDims, rank, heads);
    this.unembed_out = new MultiLinear(rank, valueDims, heads);
  }

  /** x (B, T, D), mask: an array or null → the heads' results, (B, H, T, V) */
  attend(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const { heads, plainDims, rank } = this.sizes;
    const [allQueries, compressed] = this.#project(x);
    const [plain, rotating] = splitHeads(allQueries, heads).split([plainDims], -1) as [Tensor, Tensor];
    const [latentPart, keyPart] = compressed.split([rank], -1) as [Tensor, Tensor];

    const offset = cache?.offset ?? 0;
    const query = this.rope?.forward(rotating, offset) ?? rotating;
    const sharedKey = splitHeads(keyPart, 1);
    const ownKey = this.rope?.forward(sharedKey, offset) ?? sharedKey;
    const ownLatent = this.kv_a_layernorm.forward(latentPart).expandDims(1);
    const [latent, key] = (cache?.update(ownLatent, ownKey) ?? [ownLatent, ownKey]).map(plainRows) as [Tensor, Tensor];

    let scores = query.multiply(this.scale).matmul(key.swapaxes(-1, -2));
    if (mask instanceof mx.Tensor) scores = mx.where(mask, scores, mx.finfo(scores.dtype).min);
    // One token: its query goes to the latent space. Many: keys and values are unpacked from it, which is less work then.
    const isOne = x.dim(1) === 1;
    const out = isOne
      ? attention(this.embed_q.forward(plain), latent, latent, { scale: this.scale, mask: scores })
      : attention(plain, this.embed_q.backward(latent), this.unembed_out.forward(latent), {
          scale: this.scale,
          mask: scores,
        });
    return isOne ? this.unembed_out.forward(out) : out;
  }

  /** The queries of all heads side by side, and latent vector and shared key side by side. */
  #project(x: Tensor): [Tensor, Tensor] {
    if (this.q_proj) return [this.q_proj.forward(x), this.kv_a_proj_with_mqa.forward(x)];
    const [queries, compressed] = project(x, [this.q_a_proj!, this.kv_a_proj_with_mqa]) as [Tensor, Tensor];
    return [this.q_b_proj!.forward(this.q_a_layernorm!.forward(queries)), compressed];
  }
}

export class LatentAttention extends LatentHeads {
  o_proj: Layer;

  constructor(sizes: LatentAttentionSizes, rope: RotaryEmbedding | null, scale: number) {
    super(sizes, rope, scale);
    this.o_proj = new Linear(sizes.heads * sizes.valueDims, sizes.dims, { bias: sizes.bias });
  }

  /** x (B, T, D), mask: an array or null → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    return this.o_proj.forward(joinHeads(this.attend(x, mask, cache)));
  }
}

/** Rows of a cache as they were before it packed them. */
const plainRows = (rows: Rows): Tensor =>
  rows instanceof QuantizedRows ? mx.dequantize(...rows.parts, rows.how) : rows;
