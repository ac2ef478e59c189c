/**
 * Attention to the latest tokens and to groups of older ones, of which each layer makes its own: heavily compressed ones, all
 * of which are seen, or lighter ones that overlap, of which an indexer chooses. One head of keys, which are its values too.
 * As in DeepSeek V4.
 */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { attendTo, joinHeads, splitHeads } from "./attention";
import { ArraysCache, type Cache, type KeyValueCache, KVCache, LoneCacheList, RotatingKVCache } from "./cache";
import { type CompressedCache, groupsUpTo, isAmong, noFeatures, rowsAt, TailRope } from "./compressed-attention";
import { type Layer, Linear } from "./linear";
import type { Mask } from "./masks";
import { Module, parameter } from "./module";
import { MultiLinear } from "./multi-linear";
import { RMSNorm } from "./norms";
import type { FrequencyRoPE } from "./rope";
import { highest } from "./routing";
import { indexScores } from "./sparse-indexer";

export interface PooledAttentionSizes {
  dims: number;
  heads: number;
  headDim: number;
  queryRank: number;
  /** The last features of a head, which turn with its position, and how fast. */
  rotatedDims: number;
  frequencies: () => Tensor;
  /** Groups of heads that have a projection of their own ahead of the common one, and its width. */
  outputGroups: number;
  outputRank: number;
  bias: boolean;
  /** Of the norms. */
  eps: number;
  /** Tokens in a group; 0 where only the window is seen. */
  ratio: number;
  /** How it chooses groups, which overlap then; null where all are seen. */
  indexer: { heads: number; headDim: number; topK: number } | null;
}

type Shape = Pick<PooledAttentionSizes, "dims" | "eps" | "ratio" | "rotatedDims" | "frequencies">;

/** Groups of tokens as one vector each: a sum, weighted feature by feature. */
class Compressor extends Module {
  wkv: Layer;
  wgate: Layer;
  /** Added to the gates by a token's place in its group, (ratio, …). */
  ape: Tensor;
  norm: RMSNorm;
  readonly rope: TailRope;
  readonly _ropes: FrequencyRoPE[];

  /** @param overlaps whether the tokens of the group before take part, by projections of their own */
  constructor(
    readonly shape: Shape,
    headDim: number,
    readonly overlaps: boolean,
  ) {
    super();
    const { dims, eps, ratio, rotatedDims, frequencies } = shape;
    const width = overlaps ? 2 * headDim : headDim;
    this.wkv = new Linear(dims, width, { bias: false });
    this.wgate = new Linear(dims, width, { bias: false });
    this.ape = parameter(mx.zeros([ratio, width]));
    this.norm = new RMSNorm(headDim, eps);
    this.rope = new TailRope(rotatedDims, frequencies, ratio);
    this._ropes = this.rope.frequencies;
  }

  /**
   * All groups (B, 1, G, Dh) that are closed once T tokens x (B, T, D) came behind `offset` others.
   * @param open holds what the tokens give that later groups need
   */
  forward(x: Tensor, offset: number, pool?: KeyValueCache, open?: ArraysCache): Tensor {
    const { ratio } = this.shape;
    const made = this.#pooled(x, offset, open);
    const turned = this.rope.forward(this.norm.forward(made).expandDims(1), Math.floor(offset / ratio));
    // Also where none is closed: a file's cache has rows of the same width then, if none yet.
    const [all] = (pool?.update(turned, noFeatures(turned)) ?? [turned]) as [Tensor];
    return all;
  }

  /** The groups that these tokens close, ahead of the norm, (B, G, Dh). */
  #pooled(x: Tensor, offset: number, open?: ArraysCache): Tensor {
    const { ratio } = this.shape;
    const waiting = offset % ratio;
    const closed = Math.floor((waiting + x.dim(1)) / ratio);
    const past = this.overlaps ? 2 * ratio - 1 : ratio - 1;
    // Of groups: those that are closed, and those before them.
    const [values, gates] = [this.wkv, this.wgate].map((projection, i) => {
      const own = projection.forward(x).astype("float32");
      const [batch, length, width] = own.shape as [number, number, number];
      const before = open?.get(i) ?? mx.full([batch, past, width], i === 0 ? 0 : -Infinity, "float32");
      const all = mx.concatenate([before, own], { axis: 1 });
      open?.put(i, mx.contiguous(mx.sliceAxis(all, 1, length, length + past)));
      const groups = (first: number) =>
        mx.sliceAxis(all, 1, first, first + closed * ratio).unflatten(1, [closed, ratio]);
      const first = past - waiting;
      return this.overlaps ? [groups(first - ratio), groups(first)] : [groups(first)];
    }) as [Tensor[], Tensor[]];
    const placed = gates.map((gate) => gate.add(this.ape.astype("float32")));
    if (!this.overlaps) return weightedSum(values[0]!, placed[0]!).astype(x.dtype);
    const half = (x: Tensor, i: number) => x.split(2, -1)[i]!;
    const joined = ([before, own]: Tensor[]) => mx.concatenate([half(before!, 0), half(own!, 1)], { axis: 2 });
    return weightedSum(joined(values), joined(placed)).astype(x.dtype);
  }
}

/** values and gates (B, G, R, D) → (B, G, D) */
const weightedSum = (values: Tensor, gates: Tensor) => values.multiply(mx.softmax(gates, { axis: 2 })).sum({ axis: 2 });

class GroupChooser extends Module {
  wq_b: Layer;
  weights_proj: Layer;
  compressor: Compressor;

  constructor(
    shape: Shape,
    queryRank: number,
    readonly sizes: { heads: number; headDim: number; topK: number },
  ) {
    super();
    this.wq_b = new Linear(queryRank, sizes.heads * sizes.headDim, { bias: false });
    this.weights_proj = new Linear(shape.dims, sizes.heads, { bias: false });
    this.compressor = new Compressor(shape, sizes.headDim, true);
  }

  /**
   * Which of the groups with keys (B, 1, G, Di) T tokens see: a mask (B, 1, T, G) for several tokens, the rows of one
   * (B, 1, 1, K); null for all. No gradient flows through the choice. @param seen those that end with a token, (T, G)
   */
  choose(x: Tensor, queries: Tensor, keys: Tensor, seen: Tensor | null): Tensor | null {
    const { heads, headDim, topK } = this.sizes;
    const groups = keys.dim(2);
    if (groups <= topK) return seen?.expandDims([0, 1]) ?? null;
    const weights = this.weights_proj
      .forward(x)
      .astype("float32")
      .multiply(heads ** -0.5 * headDim ** -0.5);
    const perHead = weights.swapaxes(-1, -2).expandDims(-1);
    const scores = indexScores(queries.astype("float32"), keys.astype("float32"), perHead);
    const chosen = highest(seen ? mx.where(seen, scores, -Infinity) : scores, topK);
    return seen ? isAmong(chosen, groups).bitwiseAnd(seen) : chosen;
  }
}

export class PooledAttention extends Module {
  wq_a: Layer;
  q_norm: RMSNorm;
  wq_b: Layer;
  wkv: Layer;
  kv_norm: RMSNorm;
  /** One for each group of heads. */
  wo_a: MultiLinear;
  wo_b: Layer;
  /** (H) */
  attn_sink: Tensor;
  compressor?: Compressor;
  indexer?: GroupChooser;
  readonly rope: TailRope;
  /** Frees the frequencies with the layer. */
  readonly _ropes: FrequencyRoPE[];

  constructor(readonly sizes: PooledAttentionSizes) {
    super();
    const { dims: D, heads, headDim, queryRank, outputGroups, outputRank, eps, ratio, indexer } = sizes;
    this.wq_a = new Linear(D, queryRank, { bias: false });
    this.q_norm = new RMSNorm(queryRank, eps);
    this.wq_b = new Linear(queryRank, heads * headDim, { bias: false });
    this.wkv = new Linear(D, headDim, { bias: false });
    this.kv_norm = new RMSNorm(headDim, eps);
    this.wo_a = new MultiLinear((heads * headDim) / outputGroups, outputRank, outputGroups);
    this.wo_b = new Linear(outputGroups * outputRank, D, { bias: sizes.bias });
    this.attn_sink = parameter(mx.zeros([heads]));
    this.rope = new TailRope(sizes.rotatedDims, sizes.frequencies);
    this._ropes = this.rope.frequencies;
    if (ratio > 0) this.compressor = new Compressor(sizes, headDim, indexer !== null);
    if (ratio > 0 && indexer) this.indexer = new GroupChooser(sizes, queryRank, indexer);
  }

  /** x (B, T, D), mask of the window: an array, or null for one token → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: CompressedCache): Tensor {
    const { heads, headDim, outputGroups, eps } = this.sizes;
    const [window, ...others] = (cache?.parts ?? []) as [KeyValueCache?, ...Cache[]];
    const offset = (window?.offset ?? 0) as number;
    const turned = (x: Tensor) => this.rope.forward(x, offset);
    const latentQueries = this.q_norm.forward(this.wq_a.forward(x));
    const q = turned(mx.fast.rmsNorm(splitHeads(this.wq_b.forward(latentQueries), heads), null, eps));
    const own = turned(this.kv_norm.forward(this.wkv.forward(x)).expandDims(1));
    // A cache of keys and values, of which only the keys have features.
    const [latest] = (window?.update(own, noFeatures(own)) ?? [own]) as [Tensor];
    const near = mask instanceof mx.Tensor ? mask : null;
    const [keys, seen] = this.#beside(latest, near, { x, latentQueries, offset, turned }, others);
    const options = { scale: headDim ** -0.5, mask: seen, sinks: this.attn_sink.astype(q.dtype) };
    const out = this.rope.forward(attendTo(q, keys, keys, options), offset, "back");
    const byGroup = out.unflatten(1, [outputGroups, -1]).transpose(0, 1, 3, 2, 4).flatten(-2);
    return this.wo_b.forward(joinHeads(this.wo_a.forward(byGroup)));
  }

  /** The latest rows and the groups beside them that T tokens may attend to, (B, 1, S, D), and the mask; null for all. */
  #beside(latest: Tensor, near: Tensor | null, tokens: Tokens, caches: Cache[]): [rows: Tensor, mask: Tensor | null] {
    const { x, latentQueries, offset, turned } = tokens;
    const { compressor, indexer } = this;
    if (!compressor) return [latest, near];
    const [pool, open, keyPool, keyOpen] = caches as [KeyValueCache?, ArraysCache?, KeyValueCache?, ArraysCache?];
    const groups = compressor.forward(x, offset, pool, open);
    const keys = indexer?.compressor.forward(x, offset, keyPool, keyOpen);
    const [length, count] = [x.dim(1), groups.dim(2)];
    if (count === 0) return [latest, near];
    // One token sees all groups there are: they end with it or before.
    const upTo = length === 1 ? null : groupsUpTo(length, count, offset, this.sizes.ratio);
    const queries = () => turned(splitHeads(indexer!.wq_b.forward(latentQueries), indexer!.sizes.heads));
    const far = indexer ? indexer.choose(x, queries(), keys!, upTo) : (upTo?.expandDims([0, 1]) ?? null);
    if (!upTo) {
      const rows = mx.concatenate([latest, far ? rowsAt(groups, far) : groups], { axis: 2 });
      return [rows, near && besideAll(near, rows.dim(2) - latest.dim(2))];
    }
    const sameRows = mx.broadcastTo(near!, [...far!.shape.slice(0, 3), near!.dim(-1)]);
    return [mx.concatenate([latest, groups], { axis: 2 }), mx.concatenate([sameRows, far!], { axis: -1 })];
  }

  /** Empty caches of its own. */
  makeCache(window: number): CompressedCache {
    const latest = new RotatingKVCache(window);
    const pools = [this.compressor, this.indexer].flatMap((one) => (one ? [new KVCache(), new ArraysCache(2)] : []));
    return new LoneCacheList<Cache>([latest, ...pools]);
  }
}

/** What groups are made of and chosen by. */
interface Tokens {
  x: Tensor;
  latentQueries: Tensor;
  offset: number;
  turned: (x: Tensor) => Tensor;
}

/** The mask of one token's window, (1, S) or so, with so many more columns that are all seen. */
const besideAll = (near: Tensor, count: number): Tensor =>
  mx.concatenate([near, mx.ones([...near.shape.slice(0, -1), count], "bool")], { axis: -1 });
