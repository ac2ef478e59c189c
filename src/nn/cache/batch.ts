/** Caches of several sequences side by side: rows join and leave while the others go on. */
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { Mask } from "../mask";
import type { Cache } from "./cache";

export interface BatchCache extends Cache {
  readonly batchSize: number;
  /** A copy of these rows, in this order. */
  select(rows: readonly number[]): BatchCache;
  /** Keeps these rows, in this order. */
  filter(rows: readonly number[]): void;
  /**
   * Takes over the rows of another batch of its kind, behind its own. The other one is empty afterwards.
   * @param hasRoom leaves room behind all rows, for who adds a token to each of them next
   */
  extend(other: BatchCache, hasRoom?: boolean): void;
  /** A copy of one row's cache, which the caller disposes of. */
  extract(row: number): Cache;
  /** Says how many tokens each row of the next update really has; what stands behind them is padding. */
  prepare(lengths: readonly number[]): void;
  /** After that update: takes the padding out of sight. */
  finalize(): void;
}

/** Masks of one token that hide nothing but what is not its row's own, and what of a batch decides that. */
const plainMasks = new WeakMap<Tensor, readonly number[]>();

/** The mask, which from here on is known to be plain for a batch with these numbers. */
export function plainMask(mask: Tensor, numbers: readonly number[]): Tensor {
  plainMasks.set(mask, numbers);
  return mask;
}

export function isPlainFor(mask: Mask, numbers: readonly number[]): boolean {
  const own = mask instanceof mx.Tensor && plainMasks.get(mask);
  return own ? own.length === numbers.length && own.every((value, i) => value === numbers[i]) : false;
}

/** One offset for all rows, where they agree, else a tensor (B) in the current scope. */
export function commonOffset(offsets: readonly number[]): number | Tensor {
  const [first = 0] = offsets;
  return offsets.every((offset) => offset === first) ? first : mx.array(offsets, "int32");
}

/** x (B, H, S, D) with each row's S entries moved to the right by its own shift; the last ones come in at the left. */
export function rollRows(x: Tensor, shifts: readonly number[]): Tensor {
  if (shifts.every((shift) => shift === 0)) return x;
  const length = x.dim(2);
  const places = shifts.flatMap((shift) =>
    Array.from({ length }, (_, i) => (((i - shift) % length) + length) % length),
  );
  return mx.takeAlongAxis(x, mx.array(places, "int32", [shifts.length, 1, length, 1]), { axis: 2 });
}

/** How much of an update of `length` tokens is padding in each row; null where none is. */
export function paddingOf(lengths: readonly number[] | null, length: number): number[] | null {
  const padding = lengths?.map((own) => length - own) ?? null;
  return padding?.some((count) => count > 0) ? padding : null;
}
