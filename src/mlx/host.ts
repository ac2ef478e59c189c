/** Tensors as JavaScript values. */
import type { TypedArray } from "./creation";
import { itemSize } from "./dtype";
import { astype, view } from "./elementwise";
import { native } from "./library";
import { checked } from "./native";
import type { Tensor } from "./tensor";

/** What the elements of a tensor are read into. */
export type HostArray = TypedArray;

export type NestedList = number | bigint | boolean | NestedList[];

function empty(x: Tensor): HostArray {
  const { size } = x;
  switch (x.dtype) {
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

/** The tensor in a dtype that has a typed array; `x` itself where it has one. */
function hostForm(x: Tensor): Tensor {
  if (x.dtype === "float16" || x.dtype === "bfloat16") return astype(x, "float32");
  if (x.dtype === "complex64") return view(x, "float32");
  return x;
}

export function readArray(x: Tensor): HostArray {
  const form = hostForm(x);
  try {
    const target = empty(form);
    checked(native.mlxlm_read(form.handle, target as Uint8Array, form.size * itemSize(form.dtype)));
    return target;
  } finally {
    if (form !== x) form.dispose();
  }
}

export function readList(x: Tensor): NestedList {
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
