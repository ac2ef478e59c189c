/** Blocks of every type by a formula, and what the gguf package makes of them (test/oracle/gguf_types.py). */
import { type ElementType, elementType } from "../../src/convert/gguf/types";
import { fixture, float32 } from "./fixtures";

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
export function blocksOf({ name, code, bytes: size }: ElementType, count: number): Uint8Array {
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

/** Every type that can be read. */
export const everyType: readonly ElementType[] = Array.from({ length: 64 }, (_, code) => elementType(code)).filter(
  (type) => type !== undefined,
);

/** 512 numbers of each type, but of those that the gguf package does not unpack. */
export const unpackedBlocks: readonly [type: ElementType, values: Float32Array][] = fixture<
  [name: string, values: string][]
>("gguf-types.json").map(([name, values]) => [everyType.find((type) => type.name === name)!, float32(values)]);
