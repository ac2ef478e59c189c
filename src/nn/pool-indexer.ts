/** A sparse attention's indexer that chooses pools of tokens, each as one key; the tokens of the last open pool are always seen. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { splitHeads } from "./attention";
import type { ArraysCache, KeyValueCache } from "./cache";
import { groupsUpTo, isAmong, noFeatures } from "./compressed-attention";
import { type Layer, Linear } from "./linear";
import { Module, parameter } from "./module";
import { LayerNorm } from "./norms";
import { highest } from "./routing";
import { type IndexerSizes, indexScores } from "./sparse-indexer";

export class PoolIndexer extends Module {
  wq_b: Layer;
  wk: Layer;
  k_norm: LayerNorm;
  weights_proj: Layer;
  /** Added to a token's gates by its place in the pool, (pool, Di). */
  index_kpool_compress_ape: Tensor;
  /** (Di, D) */
  index_kpool_compress_gate: Tensor;

  /** @param pool how many tokens a pool has; `topK` of them are chosen, a whole number of pools */
  constructor(
    readonly sizes: IndexerSizes,
    readonly pool: number,
  ) {
    super();
    const { dims, queryRank, heads, headDim, eps = 1e-6 } = sizes;
    this.wq_b = new Linear(queryRank, heads * headDim, { bias: false });
    this.wk = new Linear(dims, headDim, { bias: false });
    this.k_norm = new LayerNorm(headDim, eps);
    this.weights_proj = new Linear(dims, heads, { bias: false });
    this.index_kpool_compress_ape = parameter(mx.zeros([pool, headDim]));
    this.index_kpool_compress_gate = parameter(mx.zeros([headDim, dims]));
  }

  /**
   * What T tokens x (B, T, D) behind `offset` others see: a mask (B, 1, T, offset + T) for several tokens, places
   * (B, 1, 1, K) for one; null for all up to a token. No gradient flows through the choice.
   * @param pools holds the pools' keys @param open what later pools need of the latest tokens
   */
  choose(x: Tensor, latentQueries: Tensor, offset: number, pools?: KeyValueCache, open?: ArraysCache): Tensor | null {
    const { heads, headDim, topK } = this.sizes;
    const { pool } = this;
    const [length, most] = [x.dim(1), topK / pool];
    const closed = this.#pooled(x, offset, open).expandDims(1);
    // Also where none is closed: a file's cache has rows of the same width then, if none yet.
    const [keys] = (pools?.update(closed, noFeatures(closed)) ?? [closed]) as [Tensor];
    const count = keys.dim(2);
    if (count <= most) return null;

    const queries = splitHeads(this.wq_b.forward(latentQueries), heads).astype("float32");
    const factors = this.weights_proj
      .forward(x)
      .astype("float32")
      .multiply(heads ** -0.5 * headDim ** -0.5);
    const scores = indexScores(queries, keys.astype("float32"), factors.swapaxes(-1, -2).expandDims(-1));
    const total = offset + length;
    if (length === 1) {
      const chosen = mx.stopGradient(highest(scores, most));
      const places = chosen
        .expandDims(-1)
        .multiply(pool)
        .astype("int32")
        .add(mx.arange(0, pool, 1, { dtype: "int32" }));
      const tail = mx.arange(count * pool, total, 1, { dtype: "int32" });
      const [batch] = chosen.shape as [number];
      const tails = mx.broadcastTo(tail, [batch, 1, 1, tail.dim(0)]);
      return mx.concatenate([places.flatten(-2), tails], { axis: -1 });
    }
    return tokensOfBest(scores, most, pool, offset);
  }

  /** The keys of the pools that these tokens close, (B, P, Di). */
  #pooled(x: Tensor, offset: number, open?: ArraysCache): Tensor {
    const { pool } = this;
    const keys = this.k_norm.forward(this.wk.forward(x));
    const gates = x.matmul(this.index_kpool_compress_gate.T);
    const [values, weights] = [keys, gates].map((own, i) => closedPools(own, pool, offset, i, open)) as [
      Tensor,
      Tensor,
    ];
    const shares = mx.softmax(weights.astype("float32").add(this.index_kpool_compress_ape.astype("float32")), {
      axis: 2,
    });
    return values.multiply(shares).sum({ axis: 2 }).astype(x.dtype);
  }
}

/**
 * Of features of tokens (B, T, D) behind `offset` others the rows of the pools that they close, (B, P, pool, D).
 * @param open holds, as its array `index`, what later pools need of the latest tokens
 */
export function closedPools(own: Tensor, pool: number, offset: number, index: number, open?: ArraysCache): Tensor {
  const [batch, length, width] = own.shape as [number, number, number];
  const waiting = offset % pool;
  const closed = Math.floor((waiting + length) / pool);
  const before = open?.get(index) ?? mx.zeros([batch, pool - 1, width], own.dtype);
  const all = mx.concatenate([before, own], { axis: 1 });
  open?.put(index, mx.contiguous(mx.sliceAxis(all, 1, length, length + pool - 1)));
  const first = pool - 1 - waiting;
  return mx.sliceAxis(all, 1, first, first + closed * pool).unflatten(1, [closed, pool]);
}

/**
 * By scores (B, 1, T, P) of pools for T tokens behind `offset` others, which tokens each sees: those of its `most` best
 * pools, and of the pool that is open at it all up to it. (B, 1, T, offset + T)
 */
export function tokensOfBest(scores: Tensor, most: number, pool: number, offset: number): Tensor {
  const [length, count] = scores.shape.slice(-2) as [number, number];
  const total = offset + length;
  const whole = groupsUpTo(length, count, offset, pool);
  const chosen = isAmong(highest(mx.where(whole, scores, -Infinity), most), count).bitwiseAnd(whole);
  const byToken = mx.repeat(chosen, pool, { axis: -1 });
  const rest = mx.zeros([...chosen.shape.slice(0, 3), total - count * pool], "bool");
  const [places, ends] = [mx.arange(total), mx.arange(offset + 1, total + 1).expandDims(-1)];
  const tail = places.greaterEqual(ends.floorDivide(pool).multiply(pool)).bitwiseAnd(places.less(ends));
  return mx.concatenate([byToken, rest], { axis: -1 }).bitwiseOr(tail);
}
