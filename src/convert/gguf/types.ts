/**
 * The element types of GGUF, one row a type. Blocks lie as llama.cpp lays them out (ggml-common.h). A type whose blocks
 * are one of MLX's affine forms stays packed; another would be unpacked to floating point by its row.
 */
import type { Dtype, Tensor } from "../../mlx";
import * as mx from "../../mlx";

/** A tensor in MLX's form: with scales and biases where it stays packed. */
export interface Unpacked {
  weight: Tensor;
  scales?: Tensor;
  biases?: Tensor;
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
  affine?: { bits: number; groupSize: number };
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
    name: "Q4_0",
    code: 2,
    block: 32,
    bytes: 18,
    affine: { bits: 4, groupSize: 32 },
    unpack: (blocks) => symmetric(nibbles(part(blocks, 2)), half(blocks, 0), 4),
  },
  {
    name: "Q4_1",
    code: 3,
    block: 32,
    bytes: 20,
    affine: { bits: 4, groupSize: 32 },
    unpack: (blocks) => ({ weight: nibbles(part(blocks, 4)), scales: half(blocks, 0), biases: half(blocks, 2) }),
  },
  {
    name: "Q8_0",
    code: 8,
    block: 32,
    bytes: 34,
    affine: { bits: 8, groupSize: 32 },
    // Signed bytes become unsigned ones that are greater by 128.
    unpack: (blocks) => symmetric(words(mx.bitwiseXor(part(blocks, 2), 128)), half(blocks, 0), 8),
    pack: packQ8,
  },
  plain("BF16", 30, 2, "bfloat16"),
];

/** Bytes [from, to) of every block. */
const part = (blocks: Tensor, from: number, to?: number) => blocks.at(mx.ellipsis, mx.slice(from, to));

/** A float16 of every block: (…, B, bytes) → (…, B) */
const half = (blocks: Tensor, from: number) =>
  mx
    .contiguous(part(blocks, from, from + 2))
    .view("float16")
    .squeeze(-1);

/** Sixteen bytes with value j low and value j + 16 high → MLX's words: (…, B, 16) → (…, 4 B) */
function nibbles(bytes: Tensor): Tensor {
  const values = mx.concatenate([bytes.bitwiseAnd(15), bytes.rightShift(4)], { axis: -1 });
  const even = values.at(mx.ellipsis, mx.slice(undefined, undefined, 2));
  const odd = values.at(mx.ellipsis, mx.slice(1, undefined, 2));
  return words(even.bitwiseOr(odd.leftShift(4)));
}

/** (…, B, bytes) → (…, B · bytes / 4) uint32 */
const words = (bytes: Tensor) => mx.contiguous(bytes).view("uint32").flatten(-2, -1);

/** q · scale − zero · scale */
const symmetric = (weight: Tensor, scales: Tensor, bits: number): Unpacked => {
  return { weight, scales, biases: scales.multiply(-(2 ** (bits - 1))) };
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

/** Names of the others, for the refusal. */
const others: Readonly<Record<number, string>> = {
  6: "Q5_0",
  7: "Q5_1",
  9: "Q8_1",
  10: "Q2_K",
  11: "Q3_K",
  12: "Q4_K",
  13: "Q5_K",
  14: "Q6_K",
  15: "Q8_K",
  16: "IQ2_XXS",
  17: "IQ2_XS",
  18: "IQ3_XXS",
  19: "IQ1_S",
  20: "IQ4_NL",
  21: "IQ3_S",
  22: "IQ2_S",
  23: "IQ4_XS",
  24: "I8",
  25: "I16",
  26: "I32",
  27: "I64",
  28: "F64",
  29: "IQ1_M",
  34: "TQ1_0",
  35: "TQ2_0",
  39: "MXFP4",
};

const byCode = new Map(types.map((type) => [type.code, type]));
const byName = new Map(types.map((type) => [type.name, type]));

export const readableNames: readonly string[] = types.map(({ name }) => name);

export const elementType = (code: number): ElementType | undefined => byCode.get(code);

export const elementTypeName = (code: number): string => byCode.get(code)?.name ?? others[code] ?? `type ${code}`;

/** Types that files are written in. */
export type WrittenType = "F32" | "F16" | "Q8_0";

export const writtenType = (name: WrittenType) => byName.get(name) as ElementType & Required<Pick<ElementType, "pack">>;
