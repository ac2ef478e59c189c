/** Which tokens may attend to which. */

import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { KeyValueCache, MaskOptions } from "./cache/cache";

/** Null: to all. "causal": to all up to itself. An array: where it is true, broadcastable to (B, H, T, S). */
export type Mask = Tensor | "causal" | null;

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

/** The mask for hidden states h (B, T, D), which the cache is about to take in. */
export function attentionMask(h: Tensor, cache?: KeyValueCache, options: MaskOptions = {}): Mask {
  const length = h.dim(1);
  if (cache) return cache.makeMask(length, options);
  // A window that holds all tokens hides none.
  const window = options.window && length > options.window ? options.window : null;
  return windowedMask(length, 0, { ...options, window });
}

/** One mask a layer: each distinct window's is made once, with the cache of the first layer that has it. */
export function layerMasks(
  h: Tensor,
  layers: readonly { readonly window?: number | null }[],
  cache?: readonly KeyValueCache[],
): Mask[] {
  const made = new Map<number | null, Mask>();
  return layers.map((layer, i) => {
    const window = layer.window ?? null;
    let mask = made.get(window);
    if (mask === undefined) {
      mask = attentionMask(h, cache?.[i], { window });
      made.set(window, mask);
    }
    return mask;
  });
}
