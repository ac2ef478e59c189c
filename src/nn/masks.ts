/** Which tokens may attend to which. */

import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { ArraysCache } from "./cache/arrays";
import type { Cache, ChunkedCache, KeyValueCache } from "./cache/cache";
import type { Mask, MaskOptions } from "./mask";

export type { Mask, MaskOptions } from "./mask";

export interface CausalMask {
  /** How many tokens lie before the first of the T. */
  offset?: number;
  /** How many of the latest tokens are seen, a token's own included. */
  window?: number | null;
  /** Columns that don't count at the start of each batch row, (B). */
  leftPadding?: Tensor;
  /** Columns that don't count at its end, (B). */
  rightPadding?: Tensor;
}

/** The mask (T, offset + T) of T tokens; (B, 1, T, offset + T) with padding. */
export function causalMask(length: number, options: CausalMask = {}): Tensor {
  const { offset = 0, window, leftPadding, rightPadding } = options;
  const columns = mx.arange(offset + length).at(null);
  const rows = mx.arange(offset, offset + length).at(":", null);
  const perRow = (padding: Tensor) => padding.expandDims([1, 2, 3]);

  let mask = rows.greaterEqual(columns);
  if (window) mask = mask.bitwiseAnd(rows.less(columns.add(window)));
  if (rightPadding) mask = mask.bitwiseAnd(columns.less(perRow(mx.subtract(offset + length, rightPadding))));
  if (leftPadding) mask = mask.bitwiseAnd(perRow(leftPadding).lessEqual(columns));
  return mask;
}

/** The mask of T tokens after `offset` others, all of which are at hand in order of time. */
export function windowedMask(length: number, offset: number, { window, asArray = false }: MaskOptions): Mask {
  if (window) return causalMask(length, { offset, window });
  if (length === 1) return null;
  return asArray ? causalMask(length, { offset }) : "causal";
}

export interface ChunkMask {
  /** How many tokens a chunk has. */
  chunk: number;
  /** How many columns lie before the first of the T. */
  held?: number;
  /** Position of the first column, in each batch row. */
  starts?: readonly number[];
  /** Columns that don't count at the start of each row. */
  leftPadding?: readonly number[];
}

/** The mask of T tokens that see only those of their own chunk of the sequence, up to themselves. */
export function chunkMask(length: number, { chunk, held = 0, starts = [0], leftPadding = [0] }: ChunkMask): Mask {
  const chunkOf = (position: number) => Math.floor(position / chunk);
  const isPadded = leftPadding.some((padding) => padding > 0);
  const areWithin = starts.every((start) => chunkOf(start) === chunkOf(start + held + length - 1));
  if (areWithin && !isPadded) return windowedMask(length, held, {});
  const columns = mx.arange(held + length).at(null);
  const rows = mx.arange(held, held + length).at(":", null);
  const perRow = (values: readonly number[]) => mx.array(values, "int32", [values.length, 1, 1, 1]);
  const first = perRow(starts.map((start, i) => start - leftPadding[i]!));
  const chunks = (places: Tensor) => places.add(first).floorDivide(chunk);
  const mask = rows.greaterEqual(columns).bitwiseAnd(chunks(rows).equal(chunks(columns)));
  return isPadded ? mask.bitwiseAnd(perRow(leftPadding).lessEqual(columns)) : mask;
}

/** The mask for hidden states h (B, T, D), which the cache is about to take in. */
export function attentionMask(h: Tensor, cache?: KeyValueCache, options: MaskOptions = {}): Mask {
  const length = h.dim(1);
  if (cache) return cache.makeMask(length, options);
  // A window that holds all tokens hides none.
  const window = options.window && length > options.window ? options.window : null;
  return windowedMask(length, 0, { ...options, window });
}

/** How the mask of a layer is made. A layer with a rule of its own gives it a key of its own. */
export interface MaskRule<C extends Cache = KeyValueCache> {
  /** Layers whose rules have the same key share one mask. */
  readonly key: string;
  /** The mask for hidden states h (B, T, D), which the cache is about to take in. */
  make(h: Tensor, cache?: C): Mask;
  /** How many of the latest tokens are seen, where older ones are not. */
  readonly window?: number;
}

/** Every token sees all up to itself. */
export const fullAttention: MaskRule = { key: "full", make: (h, cache) => attentionMask(h, cache) };

/** Every token sees so many of the latest, itself included. */
export const slidingWindow = (window: number): MaskRule => ({
  key: `window ${window}`,
  window,
  make: (h, cache) => attentionMask(h, cache, { window }),
});

/** Every token sees those of its own chunk of the sequence, up to itself. Its cache has chunks of the same size. */
export const chunkedAttention = (chunk: number): MaskRule<ChunkedCache> => ({
  key: `chunk ${chunk}`,
  make(h, cache) {
    if (!cache) return chunkMask(h.dim(1), { chunk });
    // Each layer does so for itself; the mask is made ahead of the first.
    cache.dropFront();
    return cache.makeMask(h.dim(1));
  },
});

/** For layers that carry a state: which of the tokens are a row's own, (B, T); null where all are. */
export const recurrent: MaskRule<ArraysCache> = {
  key: "recurrent",
  make: (h, cache) => cache?.makeMask(h.dim(1)) ?? null,
};

/** The same as an array: for attention that adds scores of its own ahead of the kernel. */
export const fullAttentionArray: MaskRule = {
  key: "full, array",
  make: (h, cache) => attentionMask(h, cache, { asArray: true }),
};

/** For layers that look at no other token. */
export const noMask: MaskRule<never> = { key: "none", make: () => null };

/** One mask a layer: that of each rule is made once, with the cache of the first layer that has the rule. */
export function layerMasks<C extends Cache>(
  h: Tensor,
  rules: readonly MaskRule<C>[],
  cache?: readonly (C | undefined)[],
): Mask[] {
  const made = new Map<string, Mask>();
  return rules.map((rule, i) => {
    let mask = made.get(rule.key);
    if (mask === undefined) {
      mask = rule.make(h, cache?.[i]);
      made.set(rule.key, mask);
    }
    return mask;
  });
}
