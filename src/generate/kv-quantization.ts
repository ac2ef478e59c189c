/** Packing the KV cache while it grows: from some length on it takes a fraction of the memory, and some precision. */
import type { Cache } from "../models";
import { type KvQuantization, kindOf } from "../nn";

export interface KvQuantizationOptions extends KvQuantization {
  /** From so many tokens on. */
  start: number;
}

/**
 * Packs the layers' caches that have a packed form and are long enough, each in its place in the list. The others stay:
 * sliding windows are short, recurrent state does not grow, and lists of caches are left alone as in mlx-lm.
 */
export function quantizeCaches(cache: Cache[], options: KvQuantizationOptions | undefined): void {
  if (!options) return;
  const { start, ...how } = options;
  for (const [i, layer] of cache.entries()) {
    const packed = kindOf(layer)?.pack?.(layer, how, start);
    if (!packed) continue;
    cache[i] = packed;
    layer.dispose();
  }
}
