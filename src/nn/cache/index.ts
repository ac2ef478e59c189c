/** What layers remember between forward passes. */
export { ArraysCache } from "./arrays";
export type { BatchCache } from "./batch";
export { BatchChunkedKVCache } from "./batch-chunked";
export { BatchKVCache } from "./batch-kv";
export { BatchRotatingKVCache } from "./batch-rotating";
export { bytesOf, type Cache, type ChunkedCache, type KeyValueCache, pendingOf } from "./cache";
export { BatchCacheList, CacheList } from "./cache-list";
export { ChunkedKVCache } from "./chunked";
export { ConcatenateKVCache } from "./concatenate";
export {
  type CacheKind,
  type CacheState,
  kindOf,
  savedKindOf,
  savedStateOf,
  stateProblem,
} from "./kind";
export { kindNamed } from "./kinds";
export { KVCache } from "./kv";
export { mergeCaches } from "./merge";
export { PackedCache } from "./packed";
export { QuantizedKVCache } from "./quantized";
export { RotatingKVCache } from "./rotating";
export { checkKvQuantization, type KvQuantization, QuantizedRows } from "./rows";
export { LoneCacheList, RowsApart } from "./rows-apart";
export { isWritable, isWritableBatch, type WritableBatch, type WritableCache } from "./writable";
