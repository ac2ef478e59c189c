/** Tensors as JavaScript values. */
import { codeOf, type Dtype, itemSize, type TypedArray } from "./dtype";
import * as abi from "./generated/ops";
import { native } from "./library";
import { readInts } from "./mailbox";
import { checked, type Handle } from "./native";

/** What of a tensor is needed to read it. */
export interface Readable {
  readonly handle: Handle;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** Number of elements. */
  readonly size: number;
}

/** What the elements of a tensor are read into. */
export type HostArray = TypedArray;

export type NestedList = number | bigint | boolean | NestedList[];

function empty(dtype: Dtype, size: number): HostArray {
  switch (dtype) {
    case "bool":
    case "uint8":
      return new Uint8Array(size);
    case "uint16":
      return new Uint16Array(size);
    case "uint32":
      return new Uint32Array(size);
    case "uint64":
      return new BigUint64Array(size);
    case "int8":
      return new Int8Array(size);
    case "int16":
      return new Int16Array(size);
    case "int32":
      return new Int32Array(size);
    case "int64":
      return new BigInt64Array(size);
    case "float64":
      return new Float64Array(size);
    default:
      return new Float32Array(size);
  }
}

/** The dtype, of those that have a typed array, in which a tensor is read. */
function hostDtype(dtype: Dtype): Dtype {
  return dtype === "float16" || dtype === "bfloat16" || dtype === "complex64" ? "float32" : dtype;
}

/** All elements in row-major order; complex ones as pairs. */
export function readArray(x: Readable): HostArray {
  const dtype = hostDtype(x.dtype);
  const pairs = x.dtype === "complex64";
  const target = empty(dtype, pairs ? 2 * x.size : x.size);
  const read = (handle: Handle) =>
    checked(native.mlxlm_read(handle, target as Uint8Array, target.length * itemSize(dtype)));
  if (dtype === x.dtype) {
    read(x.handle);
    return target;
  }
  const form = (pairs ? abi.view : abi.astype)(x.handle, codeOf(dtype));
  try {
    read(form);
  } finally {
    checked(native.mlxlm_free(form));
  }
  return target;
}

/**
 * Where the highest `count` floats of a row of `x` (B, V) are, the highest first and the first of equals first; NaN and
 * −∞ are not among them.
 */
export function highestOf(x: Readable, row: number, count: number): number[] {
  return readInts(checked(native.mlxlm_highest(x.handle, row, count)));
}

export function readList(x: Readable): NestedList {
  const flat = readArray(x);
  const boolean = x.dtype === "bool";
  const shape = x.dtype === "complex64" ? [...x.shape, 2] : x.shape;
  let at = 0;
  const build = (axis: number): NestedList => {
    if (axis === shape.length) {
      const value = flat[at++]!;
      return boolean ? value === 1 : value;
    }
    return Array.from({ length: shape[axis]! }, () => build(axis + 1));
  };
  return build(0);
}
