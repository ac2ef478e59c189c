/**
 * What a model chooses by partial sorting (experts, groups of tokens), recorded in one pass and made again in another. Where
 * two scores are almost the same, roundings decide, and the rest of the pass is of another path: with choices held, two ways
 * to compute can be compared.
 */
import * as mx from "../../src/mlx";
import { native } from "../../src/mlx/library";
import { wrap } from "../../src/mlx/operand";

type ArgPartition = (x: number, kth: number, axis: number) => number;

function instead<T>(of: (original: ArgPartition) => ArgPartition, work: () => T): T {
  const table = native as unknown as { mlxlm_argpartition: ArgPartition };
  const original = table.mlxlm_argpartition;
  table.mlxlm_argpartition = of(original);
  try {
    return work();
  } finally {
    table.mlxlm_argpartition = original;
  }
}

export interface Choice {
  /** Indices in their order along the axis, kept. */
  order: mx.Tensor;
  /** Up to which place, or from which on where negative, they are chosen. */
  kth: number;
  axis: number;
}

/** The choices, in their order, besides what the work gives. The caller disposes of them. */
export function recorded<T>(work: () => T): { result: T; choices: Choice[] } {
  const choices: Choice[] = [];
  const result = instead(
    (original) => (x, kth, axis) => {
      const handle = original(x, kth, axis);
      choices.push({ order: mx.keep(wrap(handle)), kth, axis });
      return handle;
    },
    work,
  );
  return { result, choices };
}

export function dispose(choices: readonly Choice[]): void {
  for (const { order } of choices) mx.release(order);
}

/** What is chosen, a line for each row, in no order. */
export function chosen({ order, kth, axis }: Choice): string[] {
  return mx.scope(() => {
    const rows = mx.moveaxis(order, axis, -1);
    const taken = rows
      .at(mx.ellipsis, kth < 0 ? mx.slice(kth, undefined) : mx.slice(0, kth + 1))
      .reshape(-1, Math.abs(kth < 0 ? kth : kth + 1));
    return (taken.toList() as number[][]).map((row) => row.toSorted((a, b) => a - b).join());
  });
}

/** Makes the same choices again. @throws Error where the work makes more or less of them */
export function held<T>(choices: readonly Choice[], work: () => T): T {
  let made = 0;
  const result = instead(() => () => choices[made++]?.order.handle ?? -1, work);
  if (made !== choices.length) throw new Error(`${made} choices were made, and ${choices.length} were held`);
  return result;
}
