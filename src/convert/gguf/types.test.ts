/** Blocks of every type come to the numbers that the gguf package has for them. */
import { describe, expect, test } from "bun:test";
import { fixture, float32 } from "../../../test/parity/fixtures";
import * as mx from "../../mlx";
import type { Unpacked } from "./blocks";
import { type ElementType, elementType, type Packing } from "./types";

/** Where blocks have numbers of 16 bits: a factor first, then a minimum; at their start where nothing is said. */
const halves: Record<string, number[]> = {
  Q4_1: [0, 2],
  Q5_1: [0, 2],
  Q2_K: [80, 82],
  Q3_K: [108],
  Q4_K: [0, 2],
  Q5_K: [0, 2],
  Q6_K: [208],
  TQ1_0: [52],
  TQ2_0: [64],
  IQ1_M: [],
  MXFP4: [],
  NVFP4: [],
};
const numbers = [0x2e66, 0x2a3d];

/** The same as test/oracle/gguf_types.py's. */
function blocksOf({ name, code, bytes: size }: ElementType, count: number): Uint8Array {
  const data = Uint8Array.from({ length: count * size }, (_, i) => i * 131 + (i >> 3) * 17 + code * 29);
  const view = new DataView(data.buffer);
  for (let start = 0; start < data.length; start += size) {
    for (const [i, offset] of (halves[name] ?? [0]).entries()) view.setUint16(start + offset, numbers[i]!, true);
    const change = (at: number, to: (byte: number) => number) => {
      data[start + at] = to(data[start + at]!);
    };
    for (let i = 0; i < 4; i++) {
      if (name === "IQ1_M") change(49 + 2 * i, (byte) => (byte & 15) | (((numbers[0]! >> (4 * i)) & 15) << 4));
      if (name === "NVFP4") change(i, (byte) => 40 + (byte & 31));
    }
    if (name === "MXFP4") change(0, (byte) => 110 + (byte & 15));
  }
  return data;
}

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

const expected = fixture<[name: string, values: string][]>("gguf-types.json");
const byName = new Map(
  Array.from({ length: 64 }, (_, code) => elementType(code)).flatMap((type) =>
    type ? [[type.name, type] as const] : [],
  ),
);

test("every type of blocks is compared, but one that files hardly have", () => {
  const compared = new Set(expected.map(([name]) => name));
  const others = [...byName.values()].filter(({ name, block }) => block > 1 && !compared.has(name));
  expect(others.map(({ name }) => name)).toEqual(["Q8_K"]);
});

describe("dequantized", () => {
  test.each(expected)("%s", (name, values) => {
    const type = byName.get(name)!;
    const wanted = float32(values);
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
