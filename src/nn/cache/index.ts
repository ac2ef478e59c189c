/** What layers remember between forward passes. */
export type { Cache, KeyValueCache, MaskOptions } from "./cache";
export { KVCache } from "./kv";
export { type KvQuantization, QuantizedKVCache, QuantizedRows } from "./quantized";
export { RotatingKVCache } from "./rotating";
