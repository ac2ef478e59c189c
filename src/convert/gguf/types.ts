/**
 * The element types of GGUF, one row a type. Blocks lie as llama.cpp lays them out (ggml-common.h). What is packed there
 * stays packed: exactly, where groups of 32 or more have one factor; else in the narrowest form whose steps are fine beside
 * those of the type (Q2_K, Q3_K, Q6_K, IQ2_XS, IQ2_S and IQ1_M, whose groups have 16).
 */
import type { Dtype, Tensor } from "../../mlx";
import * as mx from "../../mlx";
import { fields, half, packed, part, type Unpacked, unfolded } from "./blocks";
import * as iq from "./iq-quants";
import * as k from "./k-quants";
import * as pack from "./pack";

/** How MLX has packed numbers; as affine groups, unless it is said. */
export interface Packing {
  bits: number;
  groupSize: number;
  mode?: "mxfp4" | "nvfp4";
}

export interface ElementType {
  name: string;
  /** What the file calls it. */
  code: number;
  /** Numbers in a block. */
  block: number;
  /** Bytes of a block. */
  bytes: number;
  /** bytes (…, B, bytes) uint8 of rows of B blocks → the rows */
  unpack: (blocks: Tensor) => Unpacked;
  /** How MLX has what `unpack` leaves packed. */
  affine?: Packing;
  /** Its numbers are those of the blocks by a factor. */
  hasFactor?: boolean;
  /** Rows (R, K) of any floating dtype as their bytes, uint8 in any shape; of types that can be written. */
  pack?: (rows: Tensor) => Tensor;
}

/** Numbers as they are. */
const plain = (name: string, code: number, bytes: number, dtype: Dtype): ElementType => ({
  name,
  code,
  block: 1,
  bytes,
  unpack: (blocks) => ({ weight: blocks.flatten(-2, -1).view(dtype) }),
  pack: (rows) => rows.astype(dtype).view("uint8"),
});

/** Types that can be read. */
const types: readonly ElementType[] = [
  plain("F32", 0, 4, "float32"),
  plain("F16", 1, 2, "float16"),
  {
    ...blocks("Q4_0", 2, 32, 18, affine(4)),
    unpack: (x) => symmetric(packed(nibbles(part(x, 2)), 4), half(x, 0), 4),
    pack: pack.packQ4_0,
  },
  {
    ...blocks("Q4_1", 3, 32, 20, affine(4)),
    unpack: (x) => ({ weight: packed(nibbles(part(x, 4)), 4), scales: row(half(x, 0)), biases: row(half(x, 2)) }),
  },
  {
    ...blocks("Q5_0", 6, 32, 22, affine(5)),
    unpack: (x) => symmetric(packed(five(part(x, 6), part(x, 2, 6)), 5), half(x, 0), 5),
    pack: pack.packQ5_0,
  },
  {
    ...blocks("Q5_1", 7, 32, 24, affine(5)),
    unpack: (x) => ({
      weight: packed(five(part(x, 8), part(x, 4, 8)), 5),
      scales: row(half(x, 0)),
      biases: row(half(x, 2)),
    }),
    pack: pack.packQ5_1,
  },
  {
    ...blocks("Q8_0", 8, 32, 34, affine(8)),
    // Signed bytes become unsigned ones that are greater by 128.
    unpack: (x) => symmetric(packed(mx.bitwiseXor(part(x, 2), 128), 8), half(x, 0), 8),
    pack: packQ8,
  },
  { ...blocks("Q2_K", 10, 256, 84, affine(6)), unpack: k.unpackQ2K },
  { ...blocks("Q3_K", 11, 256, 110, affine(6)), unpack: k.unpackQ3K },
  { ...blocks("Q4_K", 12, 256, 144, affine(4)), unpack: k.unpackQ4K, pack: pack.packQ4K },
  { ...blocks("Q5_K", 13, 256, 176, affine(5)), unpack: k.unpackQ5K, pack: pack.packQ5K },
  { ...blocks("Q6_K", 14, 256, 210, affine(8)), unpack: k.unpackQ6K, pack: pack.packQ6K },
  { ...blocks("Q8_K", 15, 256, 292, affine(8)), unpack: k.unpackQ8K },
  { ...blocks("IQ2_XXS", 16, 256, 66, affine(8)), unpack: iq.unpackIQ2XXS },
  { ...blocks("IQ2_XS", 17, 256, 74, affine(8)), unpack: iq.unpackIQ2XS },
  { ...blocks("IQ3_XXS", 18, 256, 98, affine(6)), unpack: iq.unpackIQ3XXS },
  { ...blocks("IQ1_S", 19, 256, 50, affine(2)), unpack: iq.unpackIQ1S },
  { ...blocks("IQ4_NL", 20, 32, 18, affine(8)), unpack: iq.unpackIQ4NL },
  { ...blocks("IQ3_S", 21, 256, 110, affine(4)), unpack: iq.unpackIQ3S },
  { ...blocks("IQ2_S", 22, 256, 82, affine(8)), unpack: iq.unpackIQ2S },
  { ...blocks("IQ4_XS", 23, 256, 136, affine(8)), unpack: iq.unpackIQ4XS },
  { ...blocks("IQ1_M", 29, 256, 56, affine(8)), unpack: iq.unpackIQ1M },
  plain("BF16", 30, 2, "bfloat16"),
  { ...blocks("TQ1_0", 34, 256, 54, { bits: 2, groupSize: 128 }), unpack: k.unpackTQ1 },
  { ...blocks("TQ2_0", 35, 256, 66, { bits: 2, groupSize: 128 }), unpack: k.unpackTQ2 },
  {
    ...blocks("MXFP4", 39, 32, 17, { bits: 4, groupSize: 32, mode: "mxfp4" }),
    unpack: (x) => ({ weight: packed(nibbles(part(x, 1)), 4), scales: row(part(x, 0, 1)) }),
  },
  {
    ...blocks("NVFP4", 40, 64, 36, { bits: 4, groupSize: 16, mode: "nvfp4" }),
    unpack: (x) => ({
      weight: packed(
        fields(part(x, 4).unflatten(-1, [4, 8]), [0, 4], 15)
          .flatten(-2, -1)
          .flatten(-2, -1),
        4,
      ),
      scales: row(part(x, 0, 4)),
    }),
  },
  { ...blocks("Q1_0", 41, 128, 18, { bits: 2, groupSize: 128 }), unpack: k.unpackQ1 },
  { ...blocks("Q2_0", 42, 64, 18, { bits: 2, groupSize: 64 }), unpack: k.unpackQ2 },
  // Of tables, not of weights.
  plain("I32", 26, 4, "int32"),
];

/** A type of blocks, but for how they are unpacked. */
function blocks(name: string, code: number, block: number, bytes: number, packing: Packing) {
  return { name, code, block, bytes, affine: packing };
}

/** Groups of 32. */
function affine(bits: number): Packing {
  return { bits, groupSize: 32 };
}

/** What every block has, of a whole row: (…, B, n) → (…, B · n) */
const row = (x: Tensor) => x.flatten(-2, -1);

/** Sixteen bytes with value j low and value j + 16 high: (…, B, 16) → (…, B, 32) */
const nibbles = (bytes: Tensor) => fields(bytes, [0, 4], 15).flatten(-2, -1);

/** The same with a fifth bit each, in four bytes. */
const five = (bytes: Tensor, high: Tensor) =>
  nibbles(bytes).bitwiseOr(unfolded(high, [0, 1, 2, 3, 4, 5, 6, 7], 1).leftShift(4));

/** q · scale − zero · scale */
const symmetric = (weight: Tensor, scales: Tensor, bits: number): Unpacked => {
  return { weight, scales: row(scales), biases: row(scales).multiply(-(2 ** (bits - 1))) };
};

/** (R, K) → (R, K / 32, 34): a float16 scale and 32 signed bytes, rounded as llama.cpp does, halves away from zero. */
function packQ8(x: Tensor): Tensor {
  const [rows, width] = x.shape as [number, number];
  const blocks = x.astype("float32").reshape(rows, width / 32, 32);
  const scales = blocks.abs().max({ axis: -1, keepdims: true }).divide(127);
  const inverse = mx.where(scales.equal(0), 0, mx.divide(1, scales));
  const scaled = blocks.multiply(inverse);
  const size = scaled.abs();
  const whole = size.floor();
  const rounded = whole.add(size.subtract(whole).multiply(2).floor()).multiply(scaled.sign());
  return mx.concatenate([scales.astype("float16").view("uint8"), rounded.astype("int8").view("uint8")], { axis: -1 });
}

/** The same numbers by codes of more bits. @param type of groups with scales and biases */
export function widened(type: ElementType, bits: number): ElementType {
  const { affine, unpack } = type;
  if (!affine || affine.bits === bits) return type;
  return {
    ...type,
    affine: { ...affine, bits },
    unpack(blocks) {
      const { weight, scales, biases } = unpack(blocks);
      const codes = mx.dequantize(weight, mx.ones(scales!.shape), mx.zeros(scales!.shape), affine);
      return { weight: packed(codes.astype("uint8").unflatten(-1, [-1, affine.groupSize]), bits), scales, biases };
    },
  };
}

/** Names of the others, for the refusal. */
const others: Readonly<Record<number, string>> = {
  9: "Q8_1",
  24: "I8",
  25: "I16",
  27: "I64",
  28: "F64",
};

const byCode = new Map(types.map((type) => [type.code, type]));
const byName = new Map(types.map((type) => [type.name, type]));

export const readableNames: readonly string[] = types.map(({ name }) => name);

export const elementType = (code: number): ElementType | undefined => byCode.get(code);

export const elementTypeName = (code: number): string => byCode.get(code)?.name ?? others[code] ?? `type ${code}`;

/** Types that files are written in. */
export type WrittenType = "F32" | "I32" | "F16" | "BF16" | "Q4_0" | "Q5_0" | "Q5_1" | "Q8_0" | "Q4_K" | "Q5_K" | "Q6_K";

export const writtenType = (name: WrittenType) => byName.get(name) as ElementType & Required<Pick<ElementType, "pack">>;
