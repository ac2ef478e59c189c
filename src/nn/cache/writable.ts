/** Caches of one sequence to which an operation may write a token in place. */
import { KVCache } from "./kv";
import { RotatingKVCache } from "./rotating";

export type WritableCache = KVCache | RotatingKVCache;

export const isWritable = (cache: unknown): cache is WritableCache =>
  cache instanceof KVCache || cache instanceof RotatingKVCache;
