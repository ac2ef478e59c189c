/** Packing the KV cache while it grows: from some length on it takes a fraction of the memory, and some precision. */
import type { Cache } from "../models";
import { KVCache, type KvQuantization } from "../nn";

export interface KvQuantizationOptions extends KvQuantization {
  /** From so many tokens on. */
  start: number;
}

/**
 * Packs the caches of full attention that are long enough, each in its place in the list. Sliding windows stay as they
 * are: they are short.
 */
export function quantizeCaches(cache: Cache[], options: KvQuantizationOptions | undefined): void {
  if (!options) return;
  const { start, ...how } = options;
  for (const [i, layer] of cache.entries()) {
    if (!(layer instanceof KVCache) || layer.offset < start) continue;
    cache[i] = layer.toQuantized(how);
    layer.dispose();
  }
}
