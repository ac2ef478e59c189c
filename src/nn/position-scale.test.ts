import { expect, test } from "bun:test";
import { expectValues } from "../../test/parity/fixtures";
import * as mx from "../mlx";
import { scaleByPosition } from "./position-scale";

const growth = { beta: 0.5, period: 4 };

const factor = (position: number) => 1 + 0.5 * Math.log(1 + Math.floor(position / 4));

/** The factors of T tokens from `offset` on, by queries of ones: (B, 1, T, 1) */
const factors = (batch: number, length: number, offset: number | mx.Tensor) =>
  scaleByPosition(mx.ones([batch, 1, length, 1]), offset, growth).toArray();

test("queries grow in steps, one token or several", () => {
  mx.scope(() => {
    expectValues(
      factors(1, 10, 0),
      Array.from({ length: 10 }, (_, i) => factor(i)),
      { tolerance: 1e-6 },
    );
    for (const offset of [0, 3, 4, 11]) expectValues(factors(1, 1, offset), [factor(offset)], { tolerance: 1e-6 });
  });
});

test("each row of a batch grows by its own position", () => {
  mx.scope(() => {
    const expected = [2, 3, 4, 9, 10, 11].map(factor);
    expectValues(factors(2, 3, mx.array([2, 9], "int32")), expected, { tolerance: 1e-6 });
  });
});

test("up to the period queries stay as they are, without an operation", () => {
  mx.scope(() => {
    const queries = mx.ones([1, 2, 3, 4]);
    expect(scaleByPosition(queries, 1, growth)).toBe(queries);
    expect(scaleByPosition(queries, 2, growth)).not.toBe(queries);
    expect(scaleByPosition(queries.astype("bfloat16"), 2, growth).dtype).toBe("bfloat16");
  });
});
