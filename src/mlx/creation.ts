/** New tensors: from host data, filled, counted. */
import { codeOf, type Dtype, type TypedArray } from "./dtype";
import { MlxError } from "./error";
import * as abi from "./generated/ops";
import { native } from "./library";
import { beginMail, writeInts } from "./mailbox";
import { checked } from "./native";
import { handlesOf, type Operand, scalar, tensorOf, wrap, wrapAll } from "./operand";
import type { Tensor } from "./tensor";

export type NestedNumbers = number | boolean | readonly NestedNumbers[];

const dtypesByArray: [abstract new () => TypedArray, Dtype][] = [
  [Uint8Array, "uint8"],
  [Uint16Array, "uint16"],
  [Uint32Array, "uint32"],
  [BigUint64Array, "uint64"],
  [Int8Array, "int8"],
  [Int16Array, "int16"],
  [Int32Array, "int32"],
  [BigInt64Array, "int64"],
  [Float32Array, "float32"],
  [Float64Array, "float64"],
];

function fromBytes(bytes: ArrayBufferView, shape: readonly number[], dtype: Dtype): Tensor {
  beginMail();
  const rank = writeInts(shape);
  return wrap(checked(native.mlxlm_from_data(bytes as Uint8Array, bytes.byteLength, rank, codeOf(dtype))));
}

/** The shape of nested lists. @throws MlxError where they are ragged */
function shapeOf(data: NestedNumbers): number[] {
  if (!Array.isArray(data)) return [];
  if (data.length === 0) return [0];
  const inner = shapeOf(data[0] as NestedNumbers);
  for (const row of data as NestedNumbers[]) {
    const shape = shapeOf(row);
    if (shape.length !== inner.length || shape.some((dim, i) => dim !== inner[i])) {
      throw new MlxError("array() needs nested lists of equal lengths");
    }
  }
  return [data.length, ...inner];
}

function flattenInto(values: (number | boolean)[], data: NestedNumbers): void {
  if (typeof data === "number" || typeof data === "boolean") values.push(data);
  else for (const item of data) flattenInto(values, item);
}

/** Numbers as bytes of the dtype that they are sent in; the few dtypes without a typed array go by way of another. */
function pack(values: readonly (number | boolean)[], dtype: Dtype): { bytes: TypedArray; dtype: Dtype } {
  const numbers = values as readonly number[];
  switch (dtype) {
    case "bool":
      return { bytes: Uint8Array.from(numbers, (value) => (value ? 1 : 0)), dtype };
    case "uint8":
      return { bytes: Uint8Array.from(numbers), dtype };
    case "uint16":
      return { bytes: Uint16Array.from(numbers), dtype };
    case "uint32":
      return { bytes: Uint32Array.from(numbers), dtype };
    case "uint64":
      return { bytes: BigUint64Array.from(numbers, (value) => BigInt(value)), dtype };
    case "int8":
      return { bytes: Int8Array.from(numbers), dtype };
    case "int16":
      return { bytes: Int16Array.from(numbers), dtype };
    case "int32":
      return { bytes: Int32Array.from(numbers, Number), dtype };
    case "int64":
      return { bytes: BigInt64Array.from(numbers, (value) => BigInt(value)), dtype };
    case "float64":
      return { bytes: Float64Array.from(numbers), dtype };
    default:
      return { bytes: Float32Array.from(numbers, Number), dtype: "float32" };
  }
}

/**
 * A tensor from host data: a number, nested lists, or a typed array (with a shape).
 * Without a dtype, booleans give bool, whole numbers int32, other numbers float32; a typed array gives its own.
 */
export function array(data: NestedNumbers | TypedArray, dtype?: Dtype, shape?: readonly number[]): Tensor {
  if (typeof data === "number" || typeof data === "boolean") {
    const value = scalar(data, dtype);
    return shape ? wrap(abi.reshape(value.handle, shape)) : value;
  }
  if (!Array.isArray(data)) {
    const typed = data as TypedArray;
    const own = dtypesByArray.find(([type]) => typed instanceof type);
    if (!own) throw new MlxError("array() needs a number, nested lists or a typed array");
    const tensor = fromBytes(typed, shape ?? [typed.length], own[1]);
    return dtype && dtype !== own[1] ? wrap(abi.astype(tensor.handle, codeOf(dtype))) : tensor;
  }
  const values: (number | boolean)[] = [];
  flattenInto(values, data as NestedNumbers);
  const chosen = dtype ?? inferDtype(values);
  const packed = pack(values, chosen);
  const tensor = fromBytes(packed.bytes, shape ?? shapeOf(data as NestedNumbers), packed.dtype);
  return packed.dtype === chosen ? tensor : wrap(abi.astype(tensor.handle, codeOf(chosen)));
}

function inferDtype(values: readonly (number | boolean)[]): Dtype {
  if (values.length === 0) return "float32";
  if (values.every((value) => typeof value === "boolean")) return "bool";
  return values.every((value) => typeof value === "boolean" || Number.isInteger(value)) ? "int32" : "float32";
}

const dims = (shape: number | readonly number[]) => (typeof shape === "number" ? [shape] : shape);

export function zeros(shape: number | readonly number[], dtype: Dtype = "float32"): Tensor {
  return wrap(abi.zeros(dims(shape), codeOf(dtype)));
}

export function ones(shape: number | readonly number[], dtype: Dtype = "float32"): Tensor {
  return wrap(abi.ones(dims(shape), codeOf(dtype)));
}

export function full(shape: number | readonly number[], value: Operand, dtype?: Dtype): Tensor {
  const filler = tensorOf(value, dtype);
  return wrap(abi.full(dims(shape), filler.handle, codeOf(dtype ?? filler.dtype)));
}

export function zerosLike(x: Tensor): Tensor {
  return wrap(abi.zeros_like(x.handle));
}

export function onesLike(x: Tensor): Tensor {
  return wrap(abi.ones_like(x.handle));
}

export function fullLike(x: Tensor, value: Operand, dtype: Dtype = x.dtype): Tensor {
  return wrap(abi.full_like(x.handle, tensorOf(value, dtype).handle, codeOf(dtype)));
}

/** `arange(stop)` or `arange(start, stop, step)`; int32 where all three are whole, else float32. */
export function arange(start: number, stop?: number, step = 1, { dtype }: { dtype?: Dtype } = {}): Tensor {
  const [from, to] = stop === undefined ? [0, start] : [start, stop];
  const whole = Number.isInteger(from) && Number.isInteger(to) && Number.isInteger(step);
  return wrap(abi.arange(from, to, step, codeOf(dtype ?? (whole ? "int32" : "float32"))));
}

export function linspace(
  start: number,
  stop: number,
  num = 50,
  { dtype = "float32" as Dtype, endpoint = true } = {},
): Tensor {
  return wrap(abi.linspace(start, stop, num, endpoint, codeOf(dtype)));
}

export function eye(n: number, m = n, k = 0, dtype: Dtype = "float32"): Tensor {
  return wrap(abi.eye(n, m, k, codeOf(dtype)));
}

export function identity(n: number, dtype: Dtype = "float32"): Tensor {
  return eye(n, n, 0, dtype);
}

/** Ones at and below the k-th diagonal. */
export function tri(n: number, m = n, k = 0, dtype: Dtype = "float32"): Tensor {
  return wrap(abi.tri(n, m, k, codeOf(dtype)));
}

export function meshgrid(arrays: readonly Tensor[], { sparse = false, indexing = "xy" as "xy" | "ij" } = {}): Tensor[] {
  return wrapAll(abi.meshgrid(handlesOf(arrays), sparse, indexing));
}

export const hanning = (size: number): Tensor => wrap(abi.hanning(size));
export const hamming = (size: number): Tensor => wrap(abi.hamming(size));
export const bartlett = (size: number): Tensor => wrap(abi.bartlett(size));
export const blackman = (size: number): Tensor => wrap(abi.blackman(size));
