/** Scaled dot-product attention over heads, and the shapes around it. */

import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { Layer } from "./linear";
import type { Mask } from "./masks";
import { projectJointly } from "./projection";

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
  /** Extra scores per head that take part in the softmax and attend to nothing, (H). */
  sinks?: Tensor | null;
}

/** softmax(q kᵀ · scale + mask) v: q (B, H, T, D), k and v (B, Hkv, S, D) with H a multiple of Hkv → (B, H, T, D). */
export function attention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions): Tensor {
  return mx.fast.scaledDotProductAttention(q, k, v, options);
}

/** How many heads queries have, and how many keys and values share (Ainslie et al. 2023, arXiv:2305.13245). */
export interface GroupedHeads {
  readonly heads: number;
  readonly kvHeads: number;
}

type QueriesKeysValues = [q: Tensor, k: Tensor, v: Tensor];

/**
 * Queries (B, H, T, D), keys and values (B, Hkv, T, D) of x (B, T, C), queries and keys rotated: one product and one
 * rotation for all where the projections are fused.
 */
export function projectHeads(
  x: Tensor,
  [queries, keys, values]: readonly [queries: Layer, keys: Layer, values: Layer],
  grouping: GroupedHeads,
  rotate: (heads: Tensor) => Tensor,
): QueriesKeysValues {
  const joint = projectJointly(x, [queries, keys, values]);
  if (joint) return splitQueriesKeysValues(joint, grouping, rotate);
  const { heads, kvHeads } = grouping;
  return [
    rotate(splitHeads(queries.forward(x), heads)),
    rotate(splitHeads(keys.forward(x), kvHeads)),
    splitHeads(values.forward(x), kvHeads),
  ];
}

/** The same from a joint projection (B, T, (H + 2 · Hkv) · D). */
export function splitQueriesKeysValues(
  joint: Tensor,
  { heads, kvHeads }: GroupedHeads,
  rotate: (heads: Tensor) => Tensor,
): QueriesKeysValues {
  const [rotated, v] = splitHeads(joint, heads + 2 * kvHeads).split([heads + kvHeads], 1) as [Tensor, Tensor];
  const [q, k] = rotate(rotated).split([heads], 1) as [Tensor, Tensor];
  return [q, k, v];
}
