import { expect, test } from "bun:test";
import fc from "fast-check";
import * as mx from ".";

const value = fc.oneof(fc.integer({ min: -9, max: 9 }), fc.constantFrom(Number.NaN, -Infinity, Infinity));

test("the highest values of a row, the first of equals first", () => {
  const lists = fc.array(value, { minLength: 1, maxLength: 300 });
  fc.assert(
    fc.property(
      lists,
      fc.integer({ min: 1, max: 40 }),
      fc.constantFrom("float32", "float16", "bfloat16"),
      (all, n, dtype) => {
        const numbers = [...all.keys()].filter((i) => all[i]! > -Infinity);
        const sorted = numbers.sort((a, b) => (all[a] === all[b] ? a - b : all[a]! > all[b]! ? -1 : 1));
        mx.scope(() => {
          const x = mx.array([...all, ...all.toReversed()], dtype, [2, all.length]);
          expect(mx.highestOf(x, 0, n)).toEqual(sorted.slice(0, n));
          expect(mx.highestOf(x.at(mx.slice(null, null, -1)), 1, n)).toEqual(sorted.slice(0, n));
        });
      },
    ),
  );
});

test("a row that there is not, and values that are no floats, are errors", () => {
  mx.scope(() => {
    for (const [x, row, count] of [
      [mx.zeros([2, 3]), 2, 1],
      [mx.zeros([2, 3]), -1, 1],
      [mx.zeros([6]), 0, 1],
      [mx.zeros([2, 3]), 0, 0],
    ] as const) {
      expect(() => mx.highestOf(x, row, count)).toThrow("highest");
    }
    expect(() => mx.highestOf(mx.zeros([2, 3], "int32"), 0, 1)).toThrow("floats");
  });
});
