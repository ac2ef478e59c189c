/** Operands of elementwise operations: tensors, and JavaScript numbers that take the other side's dtype. */
import { codeOf, type Dtype, isInexact } from "./dtype";
import { native } from "./library";
import { checked, type Handle } from "./native";
import { Tensor } from "./tensor";

/** A tensor, or a number or boolean that stands for a scalar tensor of the other operand's dtype. */
export type Operand = Tensor | number | boolean;

export function wrap(handle: Handle): Tensor {
  return new Tensor(handle);
}

export function wrapAll(handles: readonly Handle[]): Tensor[] {
  return handles.map(wrap);
}

export function handlesOf(tensors: readonly Tensor[]): Handle[] {
  return tensors.map((tensor) => tensor.handle);
}

/** The dtype that a bare number or boolean has: int32 for whole numbers, else float32. */
export function defaultDtype(value: number | boolean): Dtype {
  if (typeof value === "boolean") return "bool";
  return Number.isInteger(value) ? "int32" : "float32";
}

/**
 * The dtype that a scalar takes beside a tensor: the tensor's own, except where a fraction would be lost (a
 * non-integer beside integers is float32) or a number meets booleans.
 */
function scalarDtype(value: number | boolean, beside: Dtype): Dtype {
  if (typeof value === "boolean" || isInexact(beside)) return beside;
  return Number.isInteger(value) && beside !== "bool" ? beside : defaultDtype(value);
}

/** A 0-d tensor of the value. */
export function scalar(value: number | boolean, dtype: Dtype = defaultDtype(value)): Tensor {
  return wrap(scalarHandle(value, dtype));
}

function scalarHandle(value: number | boolean, dtype: Dtype): Handle {
  return checked(native.mlxlm_scalar(Number(value), codeOf(dtype)));
}

/** An operand as a handle; a scalar becomes one of the dtype that suits `beside`. */
export function operandHandle(value: Operand, beside: Operand): Handle {
  if (value instanceof Tensor) return value.handle;
  const dtype = beside instanceof Tensor ? scalarDtype(value, beside.dtype) : defaultDtype(value);
  return scalarHandle(value, dtype);
}

/** An operand as a tensor; a scalar gets `dtype`, or the default of its kind. */
export function tensorOf(value: Operand, dtype?: Dtype): Tensor {
  return value instanceof Tensor ? value : scalar(value, dtype);
}

/** Axes as a list; all axes of `x` where none are given. */
export function axesOf(x: Tensor, axis: number | readonly number[] | undefined): readonly number[] {
  if (axis === undefined) return x.shape.map((_, i) => i);
  return typeof axis === "number" ? [axis] : axis;
}
