/** Blocks of every type come to the numbers that the gguf package has for them. */
import { describe, expect, test } from "bun:test";
import { blocksOf, everyType, unpackedBlocks } from "../../../test/parity/gguf-blocks";
import * as mx from "../../mlx";
import type { Unpacked } from "./blocks";
import type { Packing } from "./types";

/** What MLX's words stand for, computed without rounding: a stream of codes, the lowest bit first. */
function exactly({ weight, scales, biases }: Unpacked, { bits, groupSize }: Packing): Float64Array {
  const words = weight.toArray() as Uint32Array;
  const bytes = new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
  const [factors, minima] = [scales!, biases!].map((x) => x.astype("float32").toArray() as Float32Array);
  return Float64Array.from({ length: (bytes.length * 8) / bits }, (_, i) => {
    const bit = i * bits;
    const code = ((bytes[bit >> 3]! | ((bytes[(bit >> 3) + 1] ?? 0) << 8)) >> (bit & 7)) & (2 ** bits - 1);
    const group = Math.floor(i / groupSize);
    return code * factors![group]! + minima![group]!;
  });
}

/** With one zero. */
const unsigned = (values: Float32Array) => [...values].map((value) => value + 0);

/** Types whose groups of 16 have no place in MLX's of 32: the share of a step that a number may be off. */
const rounded: Record<string, number> = { Q2_K: 0.5, Q3_K: 0.5, Q6_K: 0.5, IQ2_XS: 0.5, IQ2_S: 0.5, IQ1_M: 0.5 };

test("every type of blocks is compared, but those that the package does not unpack", () => {
  const compared = new Set(unpackedBlocks.map(([type]) => type));
  const others = everyType.filter((type) => type.block > 1 && !compared.has(type));
  expect(others.map(({ name }) => name)).toEqual(["Q8_K", "Q1_0", "Q2_0"]);
});

test.each(["Q1_0", "Q2_0"])("%s comes to what the kernels make of the same blocks", (name) => {
  mx.scope(() => {
    const type = everyType.find((one) => one.name === name)!;
    const bytes = mx.array(blocksOf(type, 4), "uint8", [2, 2, type.bytes]);
    const { weight, scales, biases } = type.unpack(bytes);
    const plain = mx.dequantize(weight, scales!, biases!, { ...type.affine!, dtype: "float32" });
    expect(plain.toList()).toEqual(mx.unpackBlocks(bytes.flatten(-2, -1), type.code).toList());
  });
});

describe("dequantized", () => {
  test.each(unpackedBlocks.map(([type, wanted]) => [type.name, type, wanted] as const))("%s", (name, type, wanted) => {
    const live = mx.liveHandles();
    mx.scope(() => {
      const count = wanted.length / type.block;
      const own = type.unpack(mx.array(blocksOf(type, count), "uint8", [2, count / 2, type.bytes]));
      const packing = type.affine!;
      expect(own.weight.shape).toEqual([2, (256 * packing.bits) / 32]);
      expect(own.scales!.shape).toEqual([2, 256 / packing.groupSize]);
      if (packing.mode) {
        const plain = mx.dequantize(own.weight, own.scales!, undefined, { ...packing, dtype: "float32" });
        expect(unsigned(plain.toArray() as Float32Array)).toEqual(unsigned(wanted));
        return;
      }
      const got = exactly(own, packing);
      const share = rounded[name];
      if (share === undefined) {
        expect(unsigned(Float32Array.from(got))).toEqual(unsigned(wanted));
        return;
      }
      const steps = own.scales!.astype("float32").toArray() as Float32Array;
      for (const [i, value] of wanted.entries()) {
        const step = Math.abs(steps[Math.floor(i / packing.groupSize)]!);
        expect(Math.abs(got[i]! - value), `${i}: ${got[i]} for ${value}`).toBeLessThanOrEqual(step * share * 1.001);
      }
      // MLX reads the words in the same way.
      const read = mx.dequantize(own.weight, own.scales!, own.biases, { ...packing, dtype: "float32" });
      const largest = Math.max(...wanted.map(Math.abs));
      for (const [i, value] of (read.toArray() as Float32Array).entries()) {
        expect(Math.abs(value - got[i]!)).toBeLessThan(1e-6 * largest);
      }
    });
    expect(mx.liveHandles()).toBe(live);
  });
});
