/** x.at(…), x.put(…) and x.addAt(…) and its like, against Python's x[…], x[…] = v and x.at[…].add(v). */
import { describe, expect, test } from "bun:test";
import type { Index, Operand, Tensor } from "../../src/mlx";
import * as mx from "../../src/mlx";
import { expectValues, fixture } from "./fixtures";
import { counted } from "./tensors";

type Nested = number | Nested[];
type Item = number | null | "..." | Nested[] | { slice: (number | null)[] } | { mask: Nested[] } | { scalar: number };

interface Row {
  shape: number[];
  index: Item[];
  /** A number, or the shape of a tensor of -1, -2, … */
  value?: number | number[];
  operation?: "add" | "subtract" | "multiply" | "divide" | "maximum" | "minimum";
  /** The result's shape; absent where Python refuses. */
  result?: number[];
  values?: number[];
  error?: string;
}

function decode(item: Item): Index {
  if (item === null) return mx.newaxis;
  if (item === "...") return mx.ellipsis;
  if (typeof item === "number") return item;
  if (Array.isArray(item))
    return item.every((x) => typeof x === "number") ? (item as number[]) : mx.array(item, "int32");
  if ("slice" in item) {
    const [start, stop, step] = item.slice.map((bound) => bound ?? undefined);
    return mx.slice(start, stop, step);
  }
  return "mask" in item ? mx.array(item.mask, "bool") : mx.array(item.scalar, "int32");
}

function operand(value: number | number[]): Operand {
  return typeof value === "number" ? value : counted(value, -1);
}

function apply(row: Row): Tensor {
  const x = counted(row.shape);
  const index = row.index.map(decode);
  if (row.value === undefined) return x.at(...index);
  const value = operand(row.value);
  switch (row.operation) {
    case undefined:
      return x.put(index, value);
    case "add":
      return x.addAt(index, value);
    case "subtract":
      return x.subtractAt(index, value);
    case "multiply":
      return x.multiplyAt(index, value);
    case "divide":
      return x.divideAt(index, value);
    case "maximum":
      return x.maximumAt(index, value);
    case "minimum":
      return x.minimumAt(index, value);
  }
}

function check(row: Row) {
  mx.scope(() => {
    if (row.result === undefined) {
      expect(() => apply(row).toArray()).toThrow();
      return;
    }
    const out = apply(row);
    expect([...out.shape]).toEqual(row.result);
    expectValues(out.toArray(), row.values!, { tolerance: 1e-6 });
  });
}

const title = ({ shape, index, value, operation }: Row) =>
  [`(${shape})`, JSON.stringify(index), operation ?? "=", value === undefined ? "" : JSON.stringify(value)].join(" ");

for (const [what, file] of [
  ["reads", "indexing-get.json"],
  ["assignments", "indexing-put.json"],
  ["accumulations", "indexing-at.json"],
] as const) {
  describe(what, () => {
    for (const row of fixture<Row[]>(file)) test(title(row), () => check(row));
  });
}

describe("a number apart from a list: a value shaped like the read fits, though not in Python", () => {
  const indices: Index[][] = [
    [0, mx.slice(), [3, 1]],
    [0, mx.newaxis, [2, 1], [3, 1]],
  ];
  for (const [i, index] of indices.entries()) {
    test(`${i}`, () => {
      mx.scope(() => {
        const x = counted([2, 3, 4]);
        const negated = x.at(...index).negative();
        expect(
          x
            .put(index, negated)
            .at(...index)
            .toList(),
        ).toEqual(negated.toList());
      });
    });
  }
});

describe("out of range, where Python reads past the memory", () => {
  const indices: Index[][] = [[6], [-7], [[0, 6]], [[-7]]];
  for (const index of indices) {
    test(JSON.stringify(index), () => {
      mx.scope(() => {
        expect(() => counted([6]).at(...index)).toThrow();
        expect(() => counted([6]).put(index, 1)).toThrow();
      });
    });
  }
});
