/** What layers remember between forward passes. */
export type { Cache, KeyValueCache, MaskOptions } from "./cache";
export { KVCache } from "./kv";
export { RotatingKVCache } from "./rotating";
