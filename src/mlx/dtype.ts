/** Element types, their codes on the C side, and how host memory holds them. */
import { MlxError } from "./error";
import { native } from "./library";
import { checked, type DtypeCode } from "./native";

/** In the order of MLX's enumeration: the index is the code. */
const names = [
  "bool",
  "uint8",
  "uint16",
  "uint32",
  "uint64",
  "int8",
  "int16",
  "int32",
  "int64",
  "float16",
  "float32",
  "float64",
  "bfloat16",
  "complex64",
] as const;

export type Dtype = (typeof names)[number];

export const bool = "bool";
export const uint8 = "uint8";
export const uint16 = "uint16";
export const uint32 = "uint32";
export const uint64 = "uint64";
export const int8 = "int8";
export const int16 = "int16";
export const int32 = "int32";
export const int64 = "int64";
export const float16 = "float16";
export const float32 = "float32";
export const float64 = "float64";
export const bfloat16 = "bfloat16";
export const complex64 = "complex64";

const codes = Object.fromEntries(names.map((name, code) => [name, code])) as Record<Dtype, DtypeCode>;

export function codeOf(dtype: Dtype): DtypeCode {
  return codes[dtype];
}

export function dtypeOf(code: DtypeCode): Dtype {
  return names[code]!;
}

const sizes: Record<Dtype, number> = {
  bool: 1,
  uint8: 1,
  uint16: 2,
  uint32: 4,
  uint64: 8,
  int8: 1,
  int16: 2,
  int32: 4,
  int64: 8,
  float16: 2,
  float32: 4,
  float64: 8,
  bfloat16: 2,
  complex64: 8,
};

/** Bytes of one element. */
export function itemSize(dtype: Dtype): number {
  return sizes[dtype];
}

const floating = new Set<Dtype>([float16, float32, float64, bfloat16]);

/** Whether the dtype is a real floating-point type. */
export function isFloating(dtype: Dtype): boolean {
  return floating.has(dtype);
}

/** Whether a fraction survives in the dtype: floating point or complex. */
export function isInexact(dtype: Dtype): boolean {
  return dtype === complex64 || isFloating(dtype);
}

/** Whether the dtype is a signed or unsigned integer; bool is not. */
export function isInteger(dtype: Dtype): boolean {
  return dtype !== bool && !isInexact(dtype);
}

/** Typed arrays whose bytes MLX can take as they are. */
export type TypedArray =
  | Uint8Array
  | Uint16Array
  | Uint32Array
  | BigUint64Array
  | Int8Array
  | Int16Array
  | Int32Array
  | BigInt64Array
  | Float32Array
  | Float64Array;

/** The dtype that an operation on both gives, by MLX's rules. */
export function promoteTypes(a: Dtype, b: Dtype): Dtype {
  return a === b ? a : dtypeOf(checked(native.mlxlm_promote(codeOf(a), codeOf(b))));
}

/** Limits of a floating dtype. @throws MlxError for others */
export function finfo(dtype: Dtype): { min: number; max: number; eps: number } {
  const limits: Partial<Record<Dtype, [max: number, eps: number]>> = {
    float16: [65504, 2 ** -10],
    bfloat16: [3.3895313892515355e38, 2 ** -7],
    float32: [3.4028234663852886e38, 2 ** -23],
    float64: [Number.MAX_VALUE, Number.EPSILON],
  };
  const found = limits[dtype];
  if (!found) throw new MlxError(`finfo needs a floating dtype, not ${dtype}`);
  return { min: -found[0], max: found[0], eps: found[1] };
}
