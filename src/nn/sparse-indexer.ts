/**
 * Sparse attention's indexer: scores by a few narrow heads choose the tokens that attention sees. DeepSeek-AI 2025,
 * arXiv:2512.02556, section 2.1.
 */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { splitHeads } from "./attention";
import type { KeyValueCache } from "./cache";
import { type Layer, Linear } from "./linear";
import type { Mask } from "./masks";
import { Module } from "./module";
import { LayerNorm } from "./norms";
import type { RotaryEmbedding } from "./rope";

export interface IndexerSizes {
  /** Features of the hidden states, and of the queries' latent vector. */
  dims: number;
  queryRank: number;
  heads: number;
  headDim: number;
  /** How many tokens are chosen. */
  topK: number;
  /** Of the norm of keys; 1e-6 where absent. */
  eps?: number;
}

/** What the indexer says of T tokens. */
export interface Choice {
  /** The chosen of S tokens for each, (B, 1, T, topK); null where all are. */
  chosen: Tensor | null;
  /** What its cache holds now. A step that chooses all has no other use for it. */
  held: readonly Tensor[];
}

/** The mask (B, 1, T, S) of chosen tokens (B, 1, T, K), within the mask of all. */
export function among(chosen: Tensor, total: number, mask: Mask): Tensor {
  const none = mx.zeros([...chosen.shape.slice(0, 3), total], "bool");
  const isChosen = mx.putAlongAxis(none, chosen, mx.array(true), { axis: -1 });
  return mask instanceof mx.Tensor ? isChosen.bitwiseAnd(mask) : isChosen;
}

/** What one token sees: the chosen (B, 1, 1, K) of latent vectors and keys (B, 1, S, …), and of the mask. */
export function takeChosen<Rows extends { latent: Tensor; key: Tensor }>(
  rows: Rows,
  chosen: Tensor,
  mask: Mask,
): [rows: Rows, mask: Mask] {
  const places = chosen.swapaxes(-1, -2);
  const taken = (all: Tensor) =>
    all.takeAlongAxis(mx.broadcastTo(places, [...places.shape.slice(0, 3), all.dim(-1)]), 2);
  const seen = mask instanceof mx.Tensor ? mask.takeAlongAxis(chosen, -1) : mask;
  return [{ ...rows, latent: taken(rows.latent), key: taken(rows.key) }, seen];
}

export class SparseIndexer extends Module {
  wq_b: Layer;
  wk: Layer;
  k_norm: LayerNorm;
  weights_proj: Layer;

  constructor(
    readonly sizes: IndexerSizes,
    readonly rope: RotaryEmbedding,
  ) {
    super();
    const { dims, queryRank, heads, headDim, eps = 1e-6 } = sizes;
    this.wq_b = new Linear(queryRank, heads * headDim, { bias: false });
    this.wk = new Linear(dims, headDim, { bias: false });
    this.k_norm = new LayerNorm(headDim, eps);
    this.weights_proj = new Linear(dims, heads, { bias: false });
  }

  /** x (B, T, D), latentQueries (B, T, queryRank), mask: an array or null. No gradient flows through the choice. */
  choose(x: Tensor, latentQueries: Tensor, mask: Mask, cache?: KeyValueCache): Choice {
    const { heads, headDim, topK } = this.sizes;
    const offset = cache?.offset ?? 0;
    const own = this.rope.forward(this.k_norm.forward(this.wk.forward(x)).expandDims(1), offset);
    // As mlx-lm keeps them, in a cache of keys and values: the values are never read.
    const held = (cache?.update(own, own) ?? []) as Tensor[];
    const keys = held[0] ?? own;
    if (keys.dim(2) <= topK) return { chosen: null, held };

    const queries = this.rope.forward(splitHeads(this.wq_b.forward(latentQueries), heads), offset);
    const factors = this.weights_proj.forward(x).multiply(heads ** -0.5 * headDim ** -0.5);
    const weights = factors.swapaxes(-1, -2).expandDims(-1);
    const scores = indexScores(queries, keys, weights);
    const seen = mask instanceof mx.Tensor ? mx.where(mask, scores, Number.NEGATIVE_INFINITY) : scores;
    const order = mx.argpartition(seen, -topK, { axis: -1 });
    return { chosen: mx.stopGradient(order.at(mx.ellipsis, mx.slice(-topK))), held };
  }
}

/** Σ over heads of weight · max(q kᵀ, 0): q (B, H, T, D), k (B, 1, S, D), weights (B, H, T, 1) → (B, 1, T, S) */
export const indexScores = (q: Tensor, k: Tensor, weights: Tensor): Tensor =>
  q.dim(2) === 1 ? scoresAtOnce(q, k, weights) : scoresByHead(q, k, weights);

function scoresAtOnce(q: Tensor, k: Tensor, weights: Tensor): Tensor {
  return q.matmul(k.swapaxes(-1, -2)).maximum(0).multiply(weights).sum({ axis: 1, keepdims: true });
}

/** The same head by head: the scores of all heads of a long prompt would fill the memory. */
function scoresByHead(q: Tensor, k: Tensor, weights: Tensor): Tensor {
  const heads = q.dim(1);
  const ofHead = weights.split(heads, 1);
  return q
    .split(heads, 1)
    .map((query, head) => scoresAtOnce(query, k, ofHead[head]!))
    .reduce((sum, scores) => sum.add(scores));
}
