/**
 * Attention to the latest tokens and to groups of older ones: one head of keys, which are its values too. Some layers
 * compress groups of tokens, and others share them; an indexer chooses which are seen. As in DeepSeek V4.1; compare
 * DeepSeek-AI 2025, arXiv:2502.11089.
 */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { attendTo, joinHeads, splitHeads } from "./attention";
import { ArraysCache, type Cache, type KeyValueCache, KVCache, LoneCacheList, RotatingKVCache } from "./cache";
import { coarse4, coarse4ByE4m3, coarse8 } from "./coarse";
import { type Layer, Linear } from "./linear";
import type { Mask } from "./masks";
import { Module, parameter } from "./module";
import { MultiLinear } from "./multi-linear";
import { RMSNorm } from "./norms";
import { FrequencyRoPE } from "./rope";
import { highest } from "./routing";
import { indexScores } from "./sparse-indexer";

/** How a layer chooses groups. */
export interface GroupIndexerSizes {
  heads: number;
  headDim: number;
  /** How many groups a token sees. */
  topK: number;
  /** Whether its keys are made of the layer's own groups. */
  makesKeys: boolean;
  /** Blocks of groups among which later layers choose, and how many of them; null where this layer chooses none. */
  blocks: { size: number; most: number } | null;
}

export interface CompressedAttentionSizes {
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
  /** Of the norms. */
  eps: number;
  /** Tokens in a group; 0 where only the window is seen. */
  ratio: number;
  /** Whether the layer makes groups. */
  compresses: boolean;
  /** Null where groups are those that an earlier layer chose. */
  indexer: GroupIndexerSizes | null;
}

/** The last features of heads turned by their positions, pairs of neighbours, in float32. */
export class TailRope {
  readonly #turns: Record<"forth" | "back", FrequencyRoPE>;

  /** @param step positions from one row to the next */
  constructor(
    private readonly dims: number,
    frequencies: () => Tensor,
    step = 1,
  ) {
    const turn = (sign: number) =>
      new FrequencyRoPE(dims, () => frequencies().multiply(sign / step), { traditional: true });
    this.#turns = { forth: turn(1), back: turn(-1) };
  }

  /** x (B, H, T, D), the first row's position in rows */
  forward(x: Tensor, offset: number, way: "forth" | "back" = "forth"): Tensor {
    const [still, turning] = x.split([x.dim(-1) - this.dims], -1) as [Tensor, Tensor];
    const turned = this.#turns[way].forward(turning.astype("float32"), offset).astype(x.dtype);
    return mx.concatenate([still, turned], { axis: -1 });
  }

  get frequencies(): FrequencyRoPE[] {
    return Object.values(this.#turns);
  }
}

/** What layers tell later ones within one forward pass. All are of whole sequences, rows that do not exist yet included. */
export interface Told {
  /** Compressed groups, (B, 1, G, D), and the keys that they are chosen by, (B, 1, G, Di). */
  groups?: Tensor;
  keys?: Tensor;
  /** Which groups each token sees: (B, 1, T, G) for several tokens, the rows of one (B, 1, 1, K); null for all. */
  chosen?: Tensor | null;
  /** Groups that later layers choose among, (B, 1, T, G); null for all. */
  candidates?: Tensor | null;
}

/** A layer's window of latest tokens, and where it makes groups those and the tokens of the one that is still open. */
export type CompressedCache = LoneCacheList<Cache>;

class Compressor extends Module {
  kv_proj: Layer;
  gate_proj?: Layer;
  kv_norm: RMSNorm;

  constructor(
    { dims, headDim, eps }: CompressedAttentionSizes,
    readonly ratio: number,
  ) {
    super();
    this.kv_proj = new Linear(dims, headDim, { bias: false });
    if (ratio > 1) this.gate_proj = new Linear(dims, headDim, { bias: false });
    this.kv_norm = new RMSNorm(headDim, eps);
  }

  /** The groups that T tokens x (B, T, D) behind `offset` others close, (B, G, Dh). `open` holds the tokens of the last one. */
  forward(x: Tensor, offset: number, open?: ArraysCache): Tensor {
    const { ratio } = this;
    if (!this.gate_proj) return this.kv_norm.forward(this.kv_proj.forward(x));
    const wide = x.astype("float32");
    const waiting = offset % ratio;
    const parts = [this.kv_proj, this.gate_proj].map((projection, i) => {
      const own = projection.forward(wide);
      const before = open?.get(i) ?? mx.zeros([own.dim(0), ratio - 1, own.dim(2)], own.dtype);
      const all = mx.concatenate([before, own], { axis: 1 });
      open?.put(i, mx.sliceAxis(all, 1, all.dim(1) - ratio + 1, all.dim(1)));
      const first = ratio - 1 - waiting;
      const closed = Math.floor((all.dim(1) - first) / ratio);
      return mx.sliceAxis(all, 1, first, first + closed * ratio).unflatten(1, [closed, ratio]);
    });
    const [values, gates] = parts as [Tensor, Tensor];
    const pooled = values.multiply(mx.softmax(gates, { axis: 2 })).sum({ axis: 2 });
    return this.kv_norm.forward(pooled.astype(x.dtype));
  }
}

class GroupIndexer extends Module {
  q_b_proj: Layer;
  weights_proj: Layer;
  /** Of layers that make groups. */
  k_proj?: Layer;
  k_norm?: RMSNorm;
  readonly ratio: number;

  constructor(
    readonly sizes: GroupIndexerSizes,
    { dims, queryRank, headDim, eps, ratio }: CompressedAttentionSizes,
  ) {
    super();
    this.q_b_proj = new Linear(queryRank, sizes.heads * sizes.headDim, { bias: false });
    this.weights_proj = new Linear(dims, sizes.heads, { bias: false });
    this.ratio = ratio;
    if (!sizes.makesKeys) return;
    this.k_proj = new Linear(headDim, sizes.headDim, { bias: false });
    this.k_norm = new RMSNorm(sizes.headDim, eps);
  }

  /**
   * Tells which of the groups so far T tokens see, x (B, T, D) and latentQueries (B, T, rank) behind `offset` others. No
   * gradient flows through the choice.
   */
  choose(x: Tensor, latentQueries: Tensor, told: Told, rope: TailRope, offset: number): void {
    const { heads, headDim, topK, blocks } = this.sizes;
    const [length, groups] = [x.dim(1), told.keys?.dim(2) ?? 0];
    if (blocks) told.candidates = null;
    const selectsBlocks = blocks !== null && Math.ceil(groups / blocks.size) > blocks.most;
    // One token sees all groups there are: they end with it or before.
    const seen = length === 1 ? null : groupsUpTo(length, groups, offset, this.ratio);
    if (groups <= topK && !selectsBlocks) {
      told.chosen = seen;
      return;
    }
    const queries = coarse4(rope.forward(splitHeads(this.q_b_proj.forward(latentQueries), heads), offset));
    const weights = this.weights_proj
      .forward(x)
      .astype("float32")
      .multiply(heads ** -0.5 * headDim ** -0.5);
    const perHead = weights.swapaxes(-1, -2).expandDims(-1);
    const scores = indexScores(queries.astype("float32"), told.keys!.astype("float32"), perHead);
    const visible = seen ? mx.where(seen, scores, -Infinity) : scores;
    if (selectsBlocks) told.candidates = this.#candidates(visible, offset, blocks);
    const among = !blocks && told.candidates ? mx.where(told.candidates, visible, -Infinity) : visible;
    const chosen = highest(among, Math.min(topK, groups));
    told.chosen = seen ? isAmong(chosen, groups).bitwiseAnd(seen) : chosen;
  }

  /** The groups (B, 1, T, G) of the blocks with the highest of scores (B, 1, T, G). */
  #candidates(scores: Tensor, offset: number, { size: block, most }: { size: number; most: number }): Tensor {
    const [length, groups] = [scores.dim(2), scores.dim(3)];
    const blocks = Math.ceil(groups / block);
    const rest = mx.full([...scores.shape.slice(0, 3), blocks * block - groups], -Infinity, scores.dtype);
    const best = mx.concatenate([scores, rest], { axis: -1 }).unflatten(-1, [blocks, block]).max({ axis: -1 });
    // The newest block is always among them: it may be partly full, and an older one score higher.
    const seen = mx.arange(offset + 1, offset + length + 1).floorDivide(this.ratio);
    const newest = seen.subtract(1).floorDivide(block).expandDims(-1);
    const ranked = mx.where(mx.arange(blocks).equal(newest), Infinity, best);
    const chosen = highest(ranked, most);
    const reached = ranked.takeAlongAxis(chosen, -1).greater(-Infinity);
    const isChosen = mx.putAlongAxis(mx.zeros(best.shape, "bool"), chosen, reached, { axis: -1 });
    return mx.sliceAxis(mx.repeat(isChosen, block, { axis: -1 }), -1, 0, groups);
  }
}

/** Which of so many groups end with each of T tokens, or before: (T, G) */
export const groupsUpTo = (length: number, groups: number, offset: number, ratio: number): Tensor =>
  mx.arange(groups).less(
    mx
      .arange(offset + 1, offset + length + 1)
      .floorDivide(ratio)
      .expandDims(-1),
  );

/** Chosen places (B, 1, T, K) of so many, as a mask (B, 1, T, G). */
export const isAmong = (chosen: Tensor, count: number): Tensor =>
  mx.putAlongAxis(mx.zeros([...chosen.shape.slice(0, 3), count], "bool"), chosen, mx.array(true), { axis: -1 });

export class CompressedAttention extends Module {
  q_a_proj: Layer;
  q_a_norm: RMSNorm;
  q_b_proj: Layer;
  kv_proj: Layer;
  kv_norm: RMSNorm;
  /** One for each group of heads. */
  o_a_proj: MultiLinear;
  o_b_proj: Layer;
  /** (H) */
  sinks: Tensor;
  compressor?: Compressor;
  indexer?: GroupIndexer;
  readonly rope: TailRope;
  readonly groupRope?: TailRope;
  /** Frees the frequencies with the layer. */
  readonly _ropes: FrequencyRoPE[];

  constructor(readonly sizes: CompressedAttentionSizes) {
    super();
    const { dims: D, heads, headDim, queryRank, outputGroups, outputRank, eps, ratio } = sizes;
    this.q_a_proj = new Linear(D, queryRank, { bias: false });
    this.q_a_norm = new RMSNorm(queryRank, eps);
    this.q_b_proj = new Linear(queryRank, heads * headDim, { bias: false });
    this.kv_proj = new Linear(D, headDim, { bias: false });
    this.kv_norm = new RMSNorm(headDim, eps);
    this.o_a_proj = new MultiLinear((heads * headDim) / outputGroups, outputRank, outputGroups);
    this.o_b_proj = new Linear(outputGroups * outputRank, D, { bias: false });
    this.sinks = parameter(mx.zeros([heads]));
    if (sizes.compresses) this.compressor = new Compressor(sizes, ratio);
    if (sizes.indexer) this.indexer = new GroupIndexer(sizes.indexer, sizes);
    this.rope = new TailRope(sizes.rotatedDims, sizes.frequencies);
    if (sizes.compresses) this.groupRope = new TailRope(sizes.rotatedDims, sizes.frequencies, ratio);
    this._ropes = [this.rope, this.groupRope].flatMap((rope) => rope?.frequencies ?? []);
  }

  /** x (B, T, D), mask of the window: an array, or null for one token → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache: CompressedCache | undefined, told: Told): Tensor {
    const { heads, headDim, outputGroups } = this.sizes;
    const [window, compressed, open] = (cache?.parts ?? []) as [KeyValueCache?, KeyValueCache?, ArraysCache?];
    const offset = (window?.offset ?? 0) as number;
    const latentQueries = this.q_a_norm.forward(this.q_a_proj.forward(x));
    const q = this.rope.forward(splitHeads(this.q_b_proj.forward(latentQueries), heads), offset);
    const own = coarse8(this.rope.forward(this.kv_norm.forward(this.kv_proj.forward(x)).expandDims(1), offset));
    // A cache of keys and values, of which only the keys have features.
    const [latest] = (window?.update(own, noFeatures(own)) ?? [own]) as [Tensor];
    if (this.compressor) this.#compress(x, offset, told, compressed, open);
    this.indexer?.choose(x, latentQueries, told, this.rope, offset);
    const [keys, seen] = this.#seen(latest, mask, told);
    // Fused kernels round the scores of heads as wide as these to the inputs' dtype.
    const wide = keys.astype("float32");
    const options = { scale: headDim ** -0.5, mask: seen, sinks: this.sinks.astype("float32") };
    const out = attendTo(q.astype("float32"), wide, wide, options).astype(x.dtype);
    const turned = this.rope.forward(out, offset, "back");
    const byGroup = turned.unflatten(1, [outputGroups, -1]).transpose(0, 1, 3, 2, 4).flatten(-2);
    return this.o_b_proj.forward(joinHeads(this.o_a_proj.forward(byGroup)));
  }

  /** Empty caches of its own. */
  makeCache(window: number): CompressedCache {
    const latest = new RotatingKVCache(window);
    if (!this.compressor) return new LoneCacheList([latest]);
    const groups = new KVCache();
    return new LoneCacheList(this.compressor.ratio > 1 ? [latest, groups, new ArraysCache(2)] : [latest, groups]);
  }

  /** Adds the groups that T tokens close to those of the cache, and tells of all. */
  #compress(x: Tensor, offset: number, told: Told, cache?: KeyValueCache, open?: ArraysCache): void {
    const closed = this.compressor!.forward(x, offset, open);
    const first = Math.floor(offset / this.sizes.ratio);
    const placed = (rows: Tensor) => this.groupRope!.forward(rows.expandDims(1), first);
    const groups = coarse4ByE4m3(placed(closed));
    const { k_norm, k_proj } = this.indexer ?? {};
    const keys = k_proj ? coarse4(placed(k_norm!.forward(k_proj.forward(closed)))) : noFeatures(groups);
    // Also where none is closed: a file's cache has rows of the same width then, if none yet.
    const [allGroups, allKeys] = (cache?.update(groups, keys) ?? [groups, keys]) as [Tensor, Tensor];
    told.groups = allGroups;
    if (k_proj) told.keys = allKeys;
  }

  /** The rows that T tokens may attend to, (B, 1, S, D), and the mask of them; null for all. */
  #seen(latest: Tensor, mask: Mask, { groups, chosen }: Told): [rows: Tensor, mask: Tensor | null] {
    const near = mask instanceof mx.Tensor ? mask : null;
    if (!this.sizes.ratio || !groups || chosen === undefined || groups.dim(2) === 0) return [latest, near];
    if (!near) {
      return [mx.concatenate([latest, chosen ? rowsAt(groups, chosen) : groups], { axis: 2 }), null];
    }
    const far = chosen!.ndim === 2 ? chosen!.expandDims([0, 1]) : chosen!;
    const sameRows = mx.broadcastTo(near, [...far.shape.slice(0, 3), near.dim(-1)]);
    return [mx.concatenate([latest, groups], { axis: 2 }), mx.concatenate([sameRows, far], { axis: -1 })];
  }
}

/** Rows of x (B, 1, G, D) at places (B, 1, 1, K): (B, 1, K, D) */
export function rowsAt(x: Tensor, places: Tensor): Tensor {
  const [batch, one, , count] = places.shape as [number, number, number, number];
  return x.takeAlongAxis(mx.broadcastTo(places.swapaxes(-1, -2), [batch, one, count, x.dim(-1)]), 2);
}

export const noFeatures = (x: Tensor): Tensor => mx.zeros([...x.shape.slice(0, 3), 0], x.dtype);
