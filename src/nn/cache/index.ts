/** What layers remember between forward passes. */
export { ArraysCache } from "./arrays";
export type { BatchCache } from "./batch";
export { BatchKVCache } from "./batch-kv";
export { BatchRotatingKVCache } from "./batch-rotating";
export type { Cache, KeyValueCache, MaskOptions } from "./cache";
export { BatchCacheList, CacheList } from "./cache-list";
export { ChunkedKVCache } from "./chunked";
export { ConcatenateKVCache } from "./concatenate";
export { KVCache } from "./kv";
export { mergeCaches } from "./merge";
export { type KvQuantization, QuantizedKVCache, QuantizedRows } from "./quantized";
export { RotatingKVCache } from "./rotating";
