import { expect, test } from "bun:test";
import { expectValues } from "../../test/parity/fixtures";
import * as mx from "../mlx";
import { geglu, gelu, geluApprox, silu, swiglu } from "./activations";

const points = [-3, -0.5, 0, 0.25, 2, 6];
const x = () => mx.array(points, "float32");
const reversed = () => mx.array(points.toReversed(), "float32");

const cases: [string, () => mx.Tensor, number[]][] = [
  ["silu", () => silu(x()), [-0.14227763, -0.18877034, 0, 0.14054412, 1.7615942, 5.985164]],
  ["gelu", () => gelu(x()), [-0.0040498674, -0.1542688, 0, 0.14967656, 1.9544998, 6]],
  ["geluApprox", () => geluApprox(x()), [-0.003637433, -0.154286, 0, 0.14967535, 1.9545977, 6]],
  ["swiglu", () => swiglu(x(), reversed()), [-0.85366577, -0.37754068, 0, 0, -0.8807971, -17.955492]],
  ["geglu", () => geglu(x(), reversed()), [-0.021824598, -0.308572, 0, 0, -0.97729886, -18]],
];

for (const [name, compute, expected] of cases) {
  test(`${name}: Python's values`, () => {
    mx.scope(() => expectValues(compute().toArray(), expected, { tolerance: 1e-6 }));
  });
}

test("half precision stays half precision", () => {
  mx.scope(() => {
    for (const fn of [silu, gelu, geluApprox]) expect(fn(x().astype("bfloat16")).dtype).toBe("bfloat16");
  });
});
