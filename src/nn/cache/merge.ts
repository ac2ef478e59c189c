/** From caches of single sequences to one of a batch. */
import { UserError } from "../../errors";
import { ArraysCache } from "./arrays";
import type { BatchCache } from "./batch";
import { BatchKVCache } from "./batch-kv";
import { BatchRotatingKVCache } from "./batch-rotating";
import type { Cache } from "./cache";
import { BatchCacheList, CacheList } from "./cache-list";
import { KVCache } from "./kv";
import { RotatingKVCache } from "./rotating";

/**
 * One layer's caches of several sequences as one. They are copied and stay as they are.
 * @throws UserError for a kind that has no batched form
 */
export function mergeCaches(caches: readonly Cache[]): BatchCache {
  if (areAll(caches, KVCache)) return BatchKVCache.merge(caches);
  if (areAll(caches, RotatingKVCache)) return BatchRotatingKVCache.merge(caches);
  if (areAll(caches, ArraysCache)) return ArraysCache.merge(caches);
  if (areAll(caches, CacheList)) {
    const parts = caches[0]!.parts.map((_, i) => mergeCaches(caches.map((list) => list.parts[i]!)));
    return new BatchCacheList(parts);
  }
  throw new UserError("these caches have no batched form", {
    hint: "Quantized and chunked caches, and mixtures of kinds, serve one sequence at a time.",
  });
}

function areAll<T extends Cache>(caches: readonly Cache[], type: new (...args: never[]) => T): caches is readonly T[] {
  return caches.every((cache) => cache instanceof type);
}
