/** Scaled dot-product attention over heads, and the shapes around it. */

import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { type KeyValueCache, QuantizedRows } from "./cache";
import type { Rows } from "./cache/rows";
import type { Layer } from "./linear";
import type { Mask } from "./masks";
import type { RMSNorm } from "./norms";
import { projectJointly } from "./projection";
import type { RotaryEmbedding } from "./rope";

/** x (B, T, heads · D) → (B, heads, T, D) */
export function splitHeads(x: Tensor, heads: number): Tensor {
  const [batch, length, features] = x.shape as [number, number, number];
  // One token lies the same either way round, which saves an operation a head group when decoding.
  if (length === 1) return x.reshape(batch, heads, 1, features / heads);
  return x.reshape(batch, length, heads, features / heads).transpose(0, 2, 1, 3);
}

/** x (B, heads, T, D) → (B, T, heads · D) */
export function joinHeads(x: Tensor): Tensor {
  const [batch, heads, length, dims] = x.shape as [number, number, number, number];
  if (length === 1) return x.reshape(batch, 1, heads * dims);
  return x.transpose(0, 2, 1, 3).reshape(batch, length, heads * dims);
}

export interface AttentionOptions {
  /** Factor on the scores, usually 1/√D. */
  scale: number;
  mask: Mask;
  /** What came before: keys and values are appended to it, and all of its are attended to. */
  cache?: KeyValueCache;
  /** Extra scores per head that take part in the softmax and attend to nothing, (H). */
  sinks?: Tensor | null;
  /** Bound of the scores: cap · tanh(score / cap). Gemma Team 2024, arXiv:2408.00118. */
  cap?: number;
}

/** softmax(q kᵀ · scale + mask) v: q (B, H, T, D), k and v (B, Hkv, S, D) with H a multiple of Hkv → (B, H, T, D). */
export function attention(q: Tensor, k: Tensor, v: Tensor, { cache, ...options }: AttentionOptions): Tensor {
  const [keys, values] = cache?.update(k, v) ?? [k, v];
  return attendTo(q, keys, values, options);
}

/** The same on keys and values that a cache has given. */
export function attendTo(q: Tensor, keys: Rows, values: Rows, options: Omit<AttentionOptions, "cache">): Tensor {
  if (keys instanceof QuantizedRows || values instanceof QuantizedRows || options.cap) {
    return unfusedAttention(q, keys, values, options);
  }
  return mx.fast.scaledDotProductAttention(q, keys, values, options);
}

/** The same step by step, for what no fused kernel does. Packed keys and values are unpacked within the products. */
function unfusedAttention(q: Tensor, keys: Rows, values: Rows, options: Omit<AttentionOptions, "cache">): Tensor {
  const { scale, mask, sinks, cap } = options;
  const [batch, heads, length, dims] = q.shape as [number, number, number, number];
  const kvHeads = (keys instanceof QuantizedRows ? keys.parts[0] : keys).dim(1);
  const repeats = heads / kvHeads;
  // Each group of queries beside the keys that it shares.
  const grouped = (x: Tensor) => (repeats > 1 ? x.expandDims(2) : x);
  const product = (x: Tensor, rows: Rows, transpose: boolean) => {
    if (!(rows instanceof QuantizedRows)) return x.matmul(transpose ? grouped(rows).swapaxes(-1, -2) : grouped(rows));
    const [w, scales, biases] = rows.parts;
    return mx.quantizedMatmul(x, grouped(w), grouped(scales), grouped(biases), { ...rows.how, transpose });
  };
  const scaled = q.multiply(scale);
  const queries = repeats > 1 ? scaled.reshape(batch, kvHeads, repeats, length, dims) : scaled;

  let scores = product(queries, keys, true);
  if (cap) scores = scores.divide(cap).tanh().multiply(cap);
  if (mask) {
    const array = mask === "causal" ? causal(length, scores.dim(-1)) : mask;
    const shaped = repeats > 1 && array.ndim > 3 ? byGroup(array, kvHeads) : array;
    scores = shaped.dtype === "bool" ? mx.where(shaped, scores, mx.finfo(scores.dtype).min) : scores.add(shaped);
  }
  const out = product(softmaxBesideSinks(scores, sinks), values, false);
  return repeats > 1 ? out.reshape(batch, heads, length, out.dim(-1)) : out;
}

/** A mask (B, 1 or H, T, S) as scores of grouped heads take it, (B, 1 or Hkv, 1 or H / Hkv, T, S). */
const byGroup = (mask: Tensor, kvHeads: number): Tensor =>
  mask.dim(1) === 1 ? mask.expandDims(-3) : mask.unflatten(1, [kvHeads, -1]);

/** softmax over the keys and each head's sink: scores (B, H, T, S) or (B, Hkv, H / Hkv, T, S), sinks (H) */
function softmaxBesideSinks(scores: Tensor, sinks: Tensor | null | undefined): Tensor {
  if (!sinks) return mx.softmax(scores, { axis: -1, precise: true });
  const heads = scores.shape.slice(1, -2);
  const column = mx.broadcastTo(sinks.reshape(1, ...heads, 1, 1).astype(scores.dtype), [
    ...scores.shape.slice(0, -1),
    1,
  ]);
  const all = mx.softmax(mx.concatenate([scores, column], { axis: -1 }), { axis: -1, precise: true });
  return mx.sliceAxis(all, -1, 0, scores.dim(-1));
}

/** Which of `total` tokens the last `length` of them may attend to. */
function causal(length: number, total: number): Tensor {
  return mx
    .arange(total - length, total)
    .expandDims(1)
    .greaterEqual(mx.arange(total));
}

/** How queries, keys and values become heads: grouped (Ainslie et al. 2023, arXiv:2305.13245), normalized, rotated. */
export interface HeadLayout {
  readonly heads: number;
  /** How many heads keys and values have; each serves heads / kvHeads of the queries'. */
  readonly kvHeads: number;
  /** Null where a layer has no positions (NoPE). */
  readonly rope: RotaryEmbedding | null;
  /** Norms over each head ahead of the rotation, where the architecture has them. */
  readonly q_norm?: RMSNorm;
  readonly k_norm?: RMSNorm;
}

type QueriesKeysValues = [q: Tensor, k: Tensor, v: Tensor];

/** The norms over heads as a kernel takes them; undefined where there are none. */
export const headNorms = ({ q_norm, k_norm }: HeadLayout) =>
  q_norm && k_norm && { queries: q_norm.gain, keys: k_norm.gain, eps: q_norm.eps };

/**
 * Queries (B, H, T, D), keys and values (B, Hkv, T, D) of x (B, T, C): one product for all where the projections are
 * fused. `offset` is the position of the first row, one for all or one for each of B.
 */
export function projectHeads(
  x: Tensor,
  [queries, keys, values]: readonly [queries: Layer, keys: Layer, values: Layer],
  layout: HeadLayout,
  offset: number | Tensor = 0,
): QueriesKeysValues {
  const joint = projectJointly(x, [queries, keys, values]);
  if (joint) return splitQueriesKeysValues(joint, layout, offset);
  const { heads, kvHeads, q_norm, k_norm } = layout;
  return [
    rotate(normalize(splitHeads(queries.forward(x), heads), q_norm), layout, offset),
    rotate(normalize(splitHeads(keys.forward(x), kvHeads), k_norm), layout, offset),
    splitHeads(values.forward(x), kvHeads),
  ];
}

const normalize = (heads: Tensor, norm: RMSNorm | undefined) => norm?.forward(heads) ?? heads;

const rotate = (heads: Tensor, { rope }: HeadLayout, offset: number | Tensor) => rope?.forward(heads, offset) ?? heads;

/** The same from a joint projection (B, T, (H + 2 · Hkv) · D). */
export function splitQueriesKeysValues(
  joint: Tensor,
  layout: HeadLayout,
  offset: number | Tensor = 0,
): QueriesKeysValues {
  const { heads, kvHeads, rope, q_norm, k_norm } = layout;
  if (joint.dim(1) === 1 && typeof offset === "number" && rope?.plain) {
    return mx.fast.rotateHeads(joint, { heads, kvHeads, norms: headNorms(layout), offset, ...rope.plain });
  }
  const all = splitHeads(joint, heads + 2 * kvHeads);
  if (q_norm || k_norm) {
    const [q, k, v] = all.split([heads, heads + kvHeads], 1) as QueriesKeysValues;
    return [rotate(normalize(q, q_norm), layout, offset), rotate(normalize(k, k_norm), layout, offset), v];
  }
  const [turning, v] = all.split([heads + kvHeads], 1) as [Tensor, Tensor];
  const [q, k] = rotate(turning, layout, offset).split([heads], 1) as [Tensor, Tensor];
  return [q, k, v];
}
