/** Attention step by step, as for packed keys and capped scores, against the kernel. */
import { describe, expect, test } from "bun:test";
import { expectValues } from "../../test/parity/fixtures";
import * as mx from "../mlx";
import { attendTo } from "./attention";
import { packRows, QuantizedRows } from "./cache/rows";

const [batch, heads, kvHeads, length, total, dims] = [2, 4, 2, 3, 5, 32] as const;

/** By how many heads a mask is of. */
const masks: Record<string, (heads: number) => mx.Tensor> = {
  "for all heads": () => random([batch, 1, length, total]),
  "by head": (count) => random([batch, count, length, total]),
};

/** Where it is true a token is seen: its own at least. */
const random = (shape: number[]) =>
  mx.random
    .uniform({ low: 0, high: 1, shape })
    .less(0.5)
    .bitwiseOr(
      mx
        .arange(length)
        .expandDims(1)
        .add(total - length)
        .equal(mx.arange(total)),
    );

describe("a mask", () => {
  for (const [name, make] of Object.entries(masks)) {
    for (const keyHeads of [kvHeads, heads]) {
      test(`${name}, ${heads} heads of queries on ${keyHeads} of keys`, () => {
        mx.random.seed(3);
        mx.scope(() => {
          const draw = (count: number, tokens: number) => mx.random.normal({ shape: [batch, count, tokens, dims] });
          const [q, k, v] = [draw(heads, length), draw(keyHeads, total), draw(keyHeads, total)];
          const options = { scale: dims ** -0.5, mask: make(heads) };
          const whole = attendTo(q, k, v, options).toArray() as Float32Array;
          // A cap so high caps nothing.
          const capped = attendTo(q, k, v, { ...options, cap: 1e4 }).toArray() as Float32Array;
          expectValues(capped, whole, { tolerance: 1e-4 });
          const how = { groupSize: 32, bits: 8 };
          const packed = [k, v].map((rows) => new QuantizedRows(packRows(rows, how), how)) as [
            QuantizedRows,
            QuantizedRows,
          ];
          expectValues(attendTo(q, ...packed, options).toArray() as Float32Array, whole, { tolerance: 3e-2 });
          const unmasked = attendTo(q, k, v, { ...options, mask: null }).toArray() as Float32Array;
          expect(Math.max(...unmasked.map((x, i) => Math.abs(x - whole[i]!)))).toBeGreaterThan(0.1);
        });
      });
    }
  }
});
