/** Shapes, joins, splits, gathers along an axis. */
import { checkedIndices } from "./bounds";
import * as abi from "./generated/ops";
import { handlesOf, type Operand, operandHandle, tensorOf, wrap, wrapAll } from "./operand";
import type { Tensor } from "./tensor";

export function reshape(x: Tensor, shape: readonly number[]): Tensor {
  return wrap(abi.reshape(x.handle, shape));
}

export function flatten(x: Tensor, startAxis = 0, endAxis = -1): Tensor {
  return wrap(abi.flatten(x.handle, startAxis, endAxis));
}

/** Splits one axis into several; one of the sizes may be -1. */
export function unflatten(x: Tensor, axis: number, shape: readonly number[]): Tensor {
  return wrap(abi.unflatten(x.handle, axis, shape));
}

/** Drops axes of size 1: the given ones, or all. */
export function squeeze(x: Tensor, axes?: number | readonly number[]): Tensor {
  if (axes === undefined) return wrap(abi.squeeze_all(x.handle));
  return wrap(abi.squeeze(x.handle, typeof axes === "number" ? [axes] : axes));
}

export function expandDims(x: Tensor, axes: number | readonly number[]): Tensor {
  return wrap(abi.expand_dims(x.handle, typeof axes === "number" ? [axes] : axes));
}

/** Permutes the axes; reverses them where none are given. */
export function transpose(x: Tensor, axes?: readonly number[]): Tensor {
  return wrap(axes ? abi.transpose(x.handle, axes) : abi.transpose_all(x.handle));
}

/** Swaps the last two axes. */
export function matrixTranspose(x: Tensor): Tensor {
  return wrap(abi.matrix_transpose(x.handle));
}

export function swapaxes(x: Tensor, axis1: number, axis2: number): Tensor {
  return wrap(abi.swapaxes(x.handle, axis1, axis2));
}

export function moveaxis(x: Tensor, source: number, destination: number): Tensor {
  return wrap(abi.moveaxis(x.handle, source, destination));
}

/** Reverses the order along the axes; all where none are given. */
export function flip(x: Tensor, axes: readonly number[] = x.shape.map((_, i) => i)): Tensor {
  return wrap(abi.flip(x.handle, axes));
}

export function broadcastTo(x: Operand, shape: readonly number[]): Tensor {
  return wrap(abi.broadcast_to(tensorOf(x).handle, shape));
}

export function broadcastArrays(arrays: readonly Tensor[]): Tensor[] {
  return wrapAll(abi.broadcast_arrays(handlesOf(arrays)));
}

export function atleast1d(x: Tensor): Tensor {
  return wrap(abi.atleast_1d(x.handle));
}

export function atleast2d(x: Tensor): Tensor {
  return wrap(abi.atleast_2d(x.handle));
}

export function atleast3d(x: Tensor): Tensor {
  return wrap(abi.atleast_3d(x.handle));
}

export function copy(x: Tensor): Tensor {
  return wrap(abi.copy(x.handle));
}

/** The tensor with row-major strides (or column-major where allowed). */
export function contiguous(x: Tensor, { allowColMajor = false } = {}): Tensor {
  return wrap(abi.contiguous(x.handle, allowColMajor));
}

/** A view by explicit strides and offset, in elements. The caller answers for staying inside the buffer. */
export function asStrided(x: Tensor, shape: readonly number[], strides: readonly number[], offset = 0): Tensor {
  return wrap(abi.as_strided(x.handle, shape, strides, offset));
}

interface Along {
  axis?: number;
}

export function concatenate(arrays: readonly Tensor[], { axis = 0 }: Along = {}): Tensor {
  return wrap(abi.concatenate(handlesOf(arrays), axis));
}

export function stack(arrays: readonly Tensor[], { axis = 0 }: Along = {}): Tensor {
  return wrap(abi.stack(handlesOf(arrays), axis));
}

export function unstack(x: Tensor, { axis = 0 }: Along = {}): Tensor[] {
  return wrapAll(abi.unstack(x.handle, axis));
}

/** Equal parts for a number, else parts that end at the given positions. */
export function split(x: Tensor, parts: number | readonly number[], { axis = 0 }: Along = {}): Tensor[] {
  return wrapAll(typeof parts === "number" ? abi.split_equal(x.handle, parts, axis) : abi.split(x.handle, parts, axis));
}

export function repeat(x: Tensor, repeats: number, { axis }: Along = {}): Tensor {
  return axis === undefined
    ? wrap(abi.repeat(abi.flatten(x.handle, 0, -1), repeats, 0))
    : wrap(abi.repeat(x.handle, repeats, axis));
}

export function tile(x: Tensor, reps: number | readonly number[]): Tensor {
  return wrap(abi.tile(x.handle, typeof reps === "number" ? [reps] : reps));
}

export interface Padding {
  value?: Operand;
  mode?: "constant" | "edge";
}

/** Pads every axis: one width for all sides, one [before, after] for all axes, or one pair per axis. */
export function pad(
  x: Tensor,
  widths: number | readonly [number, number] | readonly (readonly [number, number])[],
  { value = 0, mode = "constant" }: Padding = {},
): Tensor {
  const axes = x.shape.map((_, i) => i);
  const pairs = axes.map((i): readonly [number, number] => {
    if (typeof widths === "number") return [widths, widths];
    const entry = (widths as readonly unknown[])[Array.isArray(widths[0]) ? i : 0];
    return Array.isArray(entry) ? (entry as unknown as [number, number]) : (widths as readonly [number, number]);
  });
  return wrap(
    abi.pad(
      x.handle,
      axes,
      pairs.map(([low]) => low),
      pairs.map(([, high]) => high),
      operandHandle(value, x),
      mode,
    ),
  );
}

/** Shifts elements along the axes, around the ends; over the flattened tensor where no axis is given. */
export function roll(
  x: Tensor,
  shift: number | readonly number[],
  { axis }: { axis?: number | readonly number[] } = {},
): Tensor {
  if (axis === undefined && typeof shift === "number") return wrap(abi.roll_flat(x.handle, shift));
  const axes = axis === undefined ? [0] : typeof axis === "number" ? [axis] : axis;
  const shifts = typeof shift === "number" ? axes.map(() => shift) : shift;
  return wrap(abi.roll(x.handle, shifts, axes));
}

/** The inputs, made to wait for the dependencies when they are evaluated. */
export function depends(inputs: readonly Tensor[], dependencies: readonly Tensor[]): Tensor[] {
  return wrapAll(abi.depends(handlesOf(inputs), handlesOf(dependencies)));
}

/** Elements at `indices` along the axis (of the flattened tensor where absent). Lists of numbers are bounds-checked. */
export function take(x: Tensor, indices: Tensor | number | readonly number[], { axis }: Along = {}): Tensor {
  const handle = checkedIndices(indices, () => (axis === undefined ? x.size : x.dim(axis)), axis).handle;
  return wrap(axis === undefined ? abi.take_flat(x.handle, handle) : abi.take(x.handle, handle, axis));
}

export function takeAlongAxis(x: Tensor, indices: Tensor, { axis }: Along = {}): Tensor {
  if (axis === undefined) return wrap(abi.take_along_axis(abi.flatten(x.handle, 0, -1), indices.handle, 0));
  return wrap(abi.take_along_axis(x.handle, indices.handle, axis));
}

export function putAlongAxis(x: Tensor, indices: Tensor, values: Operand, { axis }: Along = {}): Tensor {
  const value = operandHandle(values, x);
  if (axis !== undefined) return wrap(abi.put_along_axis(x.handle, indices.handle, value, axis));
  const flat = abi.put_along_axis(abi.flatten(x.handle, 0, -1), indices.handle, value, 0);
  return wrap(abi.reshape(flat, x.shape));
}

export function scatterAddAxis(x: Tensor, indices: Tensor, values: Operand, { axis }: { axis: number }): Tensor {
  return wrap(abi.scatter_add_axis(x.handle, indices.handle, operandHandle(values, x), axis));
}

export function tril(x: Tensor, k = 0): Tensor {
  return wrap(abi.tril(x.handle, k));
}

export function triu(x: Tensor, k = 0): Tensor {
  return wrap(abi.triu(x.handle, k));
}

/** A vector as a diagonal matrix, or a matrix's diagonal as a vector. */
export function diag(x: Tensor, k = 0): Tensor {
  return wrap(abi.diag(x.handle, k));
}

export function diagonal(x: Tensor, { offset = 0, axis1 = 0, axis2 = 1 } = {}): Tensor {
  return wrap(abi.diagonal(x.handle, offset, axis1, axis2));
}

export function trace(x: Tensor, { offset = 0, axis1 = 0, axis2 = 1 } = {}): Tensor {
  return wrap(abi.trace(x.handle, offset, axis1, axis2));
}
