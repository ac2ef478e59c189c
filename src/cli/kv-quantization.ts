/** The flags about the quantized KV cache, which several commands have. */
import type { KvQuantizationOptions } from "../generate/kv-quantization";
import { flag, type Values } from "./flags";

export const kvQuantizationFlags = {
  kvBits: flag.integer("quantize the KV cache to so many bits", { min: 1, max: 8 }),
  kvGroupSize: flag.integer("group size of the quantized KV cache", { default: 64, min: 1 }),
  quantizedKvStart: flag.integer("from which token on the KV cache is quantized", { default: 5000, min: 0 }),
};

/** What the flags ask for; undefined for a plain cache. */
export function kvQuantization(flags: Values<typeof kvQuantizationFlags>): KvQuantizationOptions | undefined {
  const { kvBits: bits, kvGroupSize: groupSize, quantizedKvStart: start } = flags;
  return bits === undefined ? undefined : { bits, groupSize, start };
}
