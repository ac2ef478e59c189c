/** Operations along axes: sums and their like, order, running totals. */
import { codeOf, type Dtype } from "./dtype";
import * as abi from "./generated/ops";
import type { Handle } from "./native";
import { axesOf, type Operand, tensorOf, wrap, wrapAll } from "./operand";
import type { Tensor } from "./tensor";

export interface Reduce {
  /** The axis or axes to reduce; all where absent. */
  axis?: number | readonly number[];
  /** Whether reduced axes stay, with size 1. */
  keepdims?: boolean;
}

export interface Spread extends Reduce {
  /** Delta degrees of freedom. */
  ddof?: number;
}

export interface ArgReduce {
  /** The axis to search; the flattened tensor where absent. */
  axis?: number;
  keepdims?: boolean;
}

export interface Scan {
  reverse?: boolean;
  /** Whether element i counts in total i. */
  inclusive?: boolean;
}

type Reduction = (x: Tensor, options?: Reduce) => Tensor;

function reduction(op: (a: Handle, axes: readonly number[], keepdims: boolean) => Handle): Reduction {
  return (x, { axis, keepdims = false } = {}) => wrap(op(x.handle, axesOf(x, axis), keepdims));
}

export const sum = reduction(abi.sum);
export const mean = reduction(abi.mean);
export const prod = reduction(abi.prod);
export const max = reduction(abi.max);
export const min = reduction(abi.min);
export const all = reduction(abi.all);
export const any = reduction(abi.any);
export const median = reduction(abi.median);
export const logsumexp = reduction(abi.logsumexp);
export const countNonzero = reduction(abi.count_nonzero);

/** Smallest and largest elements in one pass. */
export function minmax(x: Tensor, { axis, keepdims = false }: Reduce = {}): [Tensor, Tensor] {
  return wrapAll(abi.minmax(x.handle, axesOf(x, axis), keepdims)) as [Tensor, Tensor];
}

export function variance(x: Tensor, { axis, keepdims = false, ddof = 0 }: Spread = {}): Tensor {
  return wrap(abi.variance(x.handle, axesOf(x, axis), keepdims, ddof));
}

export function std(x: Tensor, { axis, keepdims = false, ddof = 0 }: Spread = {}): Tensor {
  return wrap(abi.std(x.handle, axesOf(x, axis), keepdims, ddof));
}

/** Indices of the largest elements, uint32. */
export function argmax(x: Tensor, { axis, keepdims = false }: ArgReduce = {}): Tensor {
  return wrap(axis === undefined ? abi.argmax_flat(x.handle, keepdims) : abi.argmax(x.handle, axis, keepdims));
}

/** Indices of the smallest elements, uint32. */
export function argmin(x: Tensor, { axis, keepdims = false }: ArgReduce = {}): Tensor {
  return wrap(axis === undefined ? abi.argmin_flat(x.handle, keepdims) : abi.argmin(x.handle, axis, keepdims));
}

/** exp(x) normalized to sum 1 along the axes; `precise` computes in float32 whatever the dtype. */
export function softmax(
  x: Tensor,
  { axis, precise = false }: { axis?: number | readonly number[]; precise?: boolean } = {},
): Tensor {
  return wrap(abi.softmax(x.handle, axesOf(x, axis), precise));
}

interface Order {
  axis?: number;
}

export function sort(x: Tensor, { axis = -1 }: Order = {}): Tensor {
  return wrap(abi.sort(x.handle, axis));
}

/** Indices that sort along the axis, uint32. */
export function argsort(x: Tensor, { axis = -1 }: Order = {}): Tensor {
  return wrap(abi.argsort(x.handle, axis));
}

/** Reorders so that the k-th element is where a sort would put it, smaller ones before. */
export function partition(x: Tensor, kth: number, { axis = -1 }: Order = {}): Tensor {
  return wrap(abi.partition(x.handle, kth, axis));
}

export function argpartition(x: Tensor, kth: number, { axis = -1 }: Order = {}): Tensor {
  return wrap(abi.argpartition(x.handle, kth, axis));
}

/** The k largest elements along the axis, in no particular order. */
export function topk(x: Tensor, k: number, { axis = -1 }: Order = {}): Tensor {
  return wrap(abi.topk(x.handle, k, axis));
}

/** Where each value would be inserted in a sorted sequence. */
export function searchsorted(
  sorted: Tensor,
  values: Operand,
  { side = "left" }: { side?: "left" | "right" } = {},
): Tensor {
  return wrap(abi.searchsorted(sorted.handle, tensorOf(values, sorted.dtype).handle, side));
}

/** Distinct elements of a 1-d view, `size` of them (padded with `fill`), then indices, inverse and counts if asked. */
export function unique(
  x: Tensor,
  size: number,
  options: { returnIndex?: boolean; returnInverse?: boolean; returnCounts?: boolean; fill?: Operand } = {},
): Tensor[] {
  const { returnIndex = false, returnInverse = false, returnCounts = false, fill } = options;
  const filler = fill === undefined ? null : tensorOf(fill, x.dtype).handle;
  return wrapAll(abi.unique(x.handle, size, returnIndex, returnInverse, returnCounts, filler));
}

interface ScanAlong extends Scan {
  /** The axis; the flattened tensor where absent. */
  axis?: number;
}

function along(x: Tensor, axis: number | undefined): [Handle, number] {
  return axis === undefined ? [abi.flatten(x.handle, 0, -1), 0] : [x.handle, axis];
}

export function cumsum(
  x: Tensor,
  { axis, reverse = false, inclusive = true, dtype }: ScanAlong & { dtype?: Dtype } = {},
): Tensor {
  const [handle, at] = along(x, axis);
  return wrap(abi.cumsum(handle, at, reverse, inclusive, dtype ? codeOf(dtype) : null));
}

export function cumprod(
  x: Tensor,
  { axis, reverse = false, inclusive = true, dtype }: ScanAlong & { dtype?: Dtype } = {},
): Tensor {
  const [handle, at] = along(x, axis);
  return wrap(abi.cumprod(handle, at, reverse, inclusive, dtype ? codeOf(dtype) : null));
}

type Running = (x: Tensor, options?: ScanAlong) => Tensor;

function running(op: (a: Handle, axis: number, reverse: boolean, inclusive: boolean) => Handle): Running {
  return (x, { axis, reverse = false, inclusive = true } = {}) => {
    const [handle, at] = along(x, axis);
    return wrap(op(handle, at, reverse, inclusive));
  };
}

export const cummax = running(abi.cummax);
export const cummin = running(abi.cummin);
export const logcumsumexp = running(abi.logcumsumexp);

/** n-th difference along the axis. */
export function diff(x: Tensor, { n = 1, axis = -1 }: { n?: number; axis?: number } = {}): Tensor {
  return wrap(abi.diff(x.handle, n, axis));
}

/** Product of the sizes of the axes, as a tensor that follows them under `compile`; inverted: its reciprocal. */
export function numberOfElements(
  x: Tensor,
  axes: readonly number[],
  { inverted = false, dtype = "int32" as Dtype } = {},
): Tensor {
  return wrap(abi.number_of_elements(x.handle, axes, inverted, codeOf(dtype)));
}
