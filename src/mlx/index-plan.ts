/** What an index says about each axis: the common ground of reading (`at`) and writing (`put`). */
import { checkedIndices, checkIndex } from "./bounds";
import { MlxError } from "./error";
import type { Tensor } from "./tensor";

/** `start:stop:step` of one axis, as in Python: absent ends are the axis's own, negative ones count from its end. */
export class Slice {
  constructor(
    readonly start?: number | null,
    readonly stop?: number | null,
    readonly step: number = 1,
  ) {}
}

/** `slice(1)` is `1:`, `slice(0, 3)` is `0:3`, `slice(null, null, -1)` is `::-1`. */
export function slice(start?: number | null, stop?: number | null, step = 1): Slice {
  return new Slice(start, stop, step);
}

/** Stands for as many whole axes as are left. */
export const ellipsis = "...";

/** Adds an axis of size 1. */
export const newaxis = null;

/**
 * One item of an index: a number drops the axis, ":" keeps it whole, `slice(…)` a part; null adds an axis; a tensor of
 * integers or a list of numbers picks positions, several of them together as in NumPy.
 */
export type Index = number | null | ":" | "..." | Slice | Tensor | readonly number[];

/** The part of an axis that a slice takes, resolved: `length` positions from `start` by `step`. */
export interface Range {
  start: number;
  length: number;
  step: number;
}

export type Item =
  | { kind: "new" }
  | { kind: "number"; axis: number; value: number }
  | { kind: "range"; axis: number; range: Range; whole: boolean }
  | { kind: "list"; axis: number; indices: Tensor };

/** Python's rules for slices. */
function resolve({ start, stop, step }: Slice, size: number): Range {
  if (!Number.isInteger(step) || step === 0) throw new RangeError(`slice step must be a nonzero integer, not ${step}`);
  const [lowest, highest] = step > 0 ? [0, size] : [-1, size - 1];
  const clamp = (end: number | null | undefined, otherwise: number) => {
    if (end === null || end === undefined) return otherwise;
    if (!Number.isInteger(end)) throw new RangeError(`slice ends must be integers, not ${end}`);
    return Math.min(Math.max(end < 0 ? end + size : end, lowest), highest);
  };
  const from = clamp(start, step > 0 ? lowest : highest);
  const to = clamp(stop, step > 0 ? highest : lowest);
  return { start: from, length: Math.max(0, Math.ceil((to - from) / step)), step };
}

/** One item per axis of `shape`, with new axes where they were asked for. @throws RangeError, MlxError */
export function plan(shape: readonly number[], index: readonly Index[]): Item[] {
  const used = index.filter((item) => item !== null && item !== "...").length;
  if (used > shape.length) throw new RangeError(`too many indices (${used}) for a tensor with ${shape.length} axes`);
  if (index.filter((item) => item === "...").length > 1) throw new MlxError('an index can hold only one "..."');

  const items: Item[] = [];
  let axis = 0;
  const whole = (count: number) => {
    for (let i = 0; i < count; i++, axis++) {
      items.push({ kind: "range", axis, range: { start: 0, length: shape[axis]!, step: 1 }, whole: true });
    }
  };
  for (const item of index) {
    if (item === null) {
      items.push({ kind: "new" });
    } else if (item === "...") {
      whole(shape.length - used);
    } else if (item === ":") {
      whole(1);
    } else if (typeof item === "number") {
      const size = shape[axis]!;
      checkIndex(item, size, axis);
      items.push({ kind: "number", axis: axis++, value: item < 0 ? item + size : item });
    } else if (item instanceof Slice) {
      const size = shape[axis]!;
      const range = resolve(item, size);
      items.push({ kind: "range", axis: axis++, range, whole: range.length === size && range.step === 1 });
    } else {
      const size = shape[axis]!;
      const indices = checkedIndices(item, () => size, axis);
      if (indices.dtype === "bool" || indices.dtype.startsWith("float") || indices.dtype === "bfloat16") {
        throw new MlxError(`indices must be integers, not ${indices.dtype}`);
      }
      items.push({ kind: "list", axis: axis++, indices });
    }
  }
  whole(shape.length - axis);
  return items;
}

/** A stop that means "before the first position": small negative ones count from the end. */
const beforeFirst = -0x7fffffff;

/** Start, stop and stride of every axis, as MLX's slice takes them; a number takes one position. */
export function bounds(items: readonly Item[]): { start: number[]; stop: number[]; stride: number[] } {
  const start: number[] = [];
  const stop: number[] = [];
  const stride: number[] = [];
  for (const item of items) {
    if (item.kind === "new" || item.kind === "list") continue;
    const range = item.kind === "number" ? { start: item.value, length: 1, step: 1 } : item.range;
    start.push(range.start);
    stride.push(range.step);
    const end = range.start + range.length * range.step;
    stop.push(end >= 0 ? end : beforeFirst);
  }
  return { start, stop, stride };
}

/** Shape of several shapes broadcast together. @throws RangeError where they don't fit */
export function broadcastShape(shapes: readonly (readonly number[])[]): number[] {
  const rank = Math.max(0, ...shapes.map((shape) => shape.length));
  return Array.from({ length: rank }, (_, i) => {
    let size = 1;
    for (const shape of shapes) {
      const dim = shape[shape.length - rank + i] ?? 1;
      if (dim !== 1 && size !== 1 && dim !== size) {
        throw new RangeError(`shapes ${shapes.map((s) => `(${s.join(", ")})`).join(" and ")} do not broadcast`);
      }
      if (dim !== 1) size = dim;
    }
    return size;
  });
}
