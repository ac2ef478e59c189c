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
import { type Divisible, divideLatentHeads, type LatentOptions, type Split } from "./shard";

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
  /** Of the norms of latent vectors; 1e-6 where absent, whatever the configuration says of others. */
  eps?: number;
}

/** What hidden states (B, T, D) give before the cache takes part in it. */
export interface LatentHeads {
  /** Queries ahead of the last projection, (B, T, queryRank); null where they are projected at once. */
  latentQueries: Tensor | null;
  /** The part of the queries that does not turn, (B, H, T, plainDims). */
  plain: Tensor;
  /** The part that does, turned, (B, H, T, rotatedDims). */
  rotated: Tensor;
  /** (B, 1, T, rank) */
  latent: Tensor;
  /** (B, 1, T, rotatedDims) */
  key: Tensor;
}

/** Projections of the hidden states that may run as one. */
export const latentJoins = [["q_a_proj", "kv_a_proj_with_mqa"]];

/** Its layers but the last, and what they compute before and after the cache takes part. */
export class LatentInputs extends Module implements Divisible {
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
    public sizes: LatentAttentionSizes,
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

  /** Scores of each head that attend to nothing, (H), where it has them. */
  protected get scoreSinks(): Tensor | null {
    return null;
  }

  /** Leaves this rank's heads, whose results are the inputs of the last layer. */
  shard(split: Split, options: LatentOptions = {}): void {
    const heads = divideLatentHeads(this, split, options);
    if (heads !== null) this.sizes = { ...this.sizes, heads };
  }

  /** @param offset the position of the first token, one for all or one for each of B */
  protected project(x: Tensor, offset: number | Tensor = 0): LatentHeads {
    const { heads, plainDims, rank } = this.sizes;
    const { latentQueries, queries, compressed } = this.#compress(x);
    const [plain, rotating] = splitHeads(queries, heads).split([plainDims], -1) as [Tensor, Tensor];
    const [latentPart, keyPart] = compressed.split([rank], -1) as [Tensor, Tensor];
    const turned = (heads: Tensor) => this.rope?.forward(heads, offset) ?? heads;
    return {
      latentQueries,
      plain,
      rotated: turned(rotating),
      key: turned(splitHeads(keyPart, 1)),
      latent: this.kv_a_layernorm.forward(latentPart).expandDims(1),
    };
  }

  /** The queries of T tokens, the latent vectors and keys of all that they may see → the heads' results, (B, H, T, V) */
  protected attendByHead({ plain, rotated, latent, key }: LatentHeads, mask: Mask): Tensor {
    let scores = rotated.multiply(this.scale).matmul(key.swapaxes(-1, -2));
    if (mask instanceof mx.Tensor) scores = mx.where(mask, scores, mx.finfo(scores.dtype).min);
    // One token: its query goes to the latent space. Many: keys and values are unpacked from it, which is less work then.
    const isOne = plain.dim(2) === 1;
    const options = { scale: this.scale, mask: scores, sinks: this.scoreSinks?.astype(plain.dtype) };
    const out = isOne
      ? attention(this.embed_q.forward(plain), latent, latent, options)
      : attention(plain, this.embed_q.backward(latent), this.unembed_out.forward(latent), options);
    return isOne ? this.unembed_out.forward(out) : out;
  }

  /** x (B, T, D), mask: an array or null → the heads' results, (B, H, T, V) */
  protected heads(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const own = this.project(x, cache?.offset);
    return this.attendByHead({ ...own, ...remember(own, cache) }, mask);
  }

  /** The queries of all heads side by side, and latent vector and shared key side by side. */
  #compress(x: Tensor): { latentQueries: Tensor | null; queries: Tensor; compressed: Tensor } {
    if (this.q_proj) {
      const compressed = this.kv_a_proj_with_mqa.forward(x);
      return { latentQueries: null, queries: this.q_proj.forward(x), compressed };
    }
    const [narrow, compressed] = project(x, [this.q_a_proj!, this.kv_a_proj_with_mqa]) as [Tensor, Tensor];
    const latentQueries = this.q_a_layernorm!.forward(narrow);
    return { latentQueries, queries: this.q_b_proj!.forward(latentQueries), compressed };
  }
}

/** The same with the last projection. */
export class LatentProjections extends LatentInputs {
  o_proj: Layer;

  constructor(sizes: LatentAttentionSizes, rope: RotaryEmbedding | null, scale: number) {
    super(sizes, rope, scale);
    this.o_proj = new Linear(sizes.heads * sizes.valueDims, sizes.dims, { bias: sizes.bias });
  }

  /** The queries of T tokens, the latent vectors and keys of all that they may see → (B, T, D) */
  protected attend(heads: LatentHeads, mask: Mask): Tensor {
    return this.o_proj.forward(joinHeads(this.attendByHead(heads, mask)));
  }
}

export class LatentAttention extends LatentProjections {
  /** x (B, T, D), mask: an array or null → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const own = this.project(x, cache?.offset);
    return this.attend({ ...own, ...remember(own, cache) }, mask);
  }
}

/** Latent vectors and keys of all tokens, once the cache has those of the latest. */
export function remember({ latent, key }: LatentHeads, cache?: KeyValueCache): Pick<LatentHeads, "latent" | "key"> {
  if (!cache) return { latent, key };
  const [latents, keys] = cache.update(latent, key).map(plainRows) as [Tensor, Tensor];
  return { latent: latents, key: keys };
}

/** Rows of a cache as they were before it packed them. */
const plainRows = (rows: Rows): Tensor =>
  rows instanceof QuantizedRows ? mx.dequantize(...rows.parts, rows.how) : rows;
