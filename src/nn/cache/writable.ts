/** Caches to which an operation may write tokens in place. */
import { BatchKVCache } from "./batch-kv";
import { BatchRotatingKVCache } from "./batch-rotating";
import { KVCache } from "./kv";
import { RotatingKVCache } from "./rotating";

/** Of one sequence. */
export type WritableCache = KVCache | RotatingKVCache;

export const isWritable = (cache: unknown): cache is WritableCache =>
  cache instanceof KVCache || cache instanceof RotatingKVCache;

/** Of several sequences, one token each. */
export type WritableBatch = BatchKVCache | BatchRotatingKVCache;

export const isWritableBatch = (cache: unknown): cache is WritableBatch =>
  cache instanceof BatchKVCache || cache instanceof BatchRotatingKVCache;
