/** Values and gradients of composite functions against Python's. */
import { expect, test } from "bun:test";
import type { Tensor } from "../../src/mlx";
import * as mx from "../../src/mlx";
import { type Expected, expectTensor, expectValues, fixture } from "./fixtures";
import { composites } from "./gradients";

interface Row {
  name: string;
  value: number;
  gradients: Expected[];
}

const rows = fixture<Row[]>("gradients.json");

test("every composite has a fixture", () => {
  expect(Object.keys(composites).sort()).toEqual(rows.map((row) => row.name).sort());
});

for (const row of rows) {
  test(row.name, () => {
    mx.scope(() => {
      const { fn, inputs } = composites[row.name]!;
      const tensors = inputs.map((make) => make());
      const argnums = tensors.map((_, i) => i);
      const [value, gradients] = mx.valueAndGrad(fn, argnums)(...tensors);
      expectValues([(value as Tensor).item()], [row.value]);
      const list = gradients as Tensor[];
      expect(list.length).toBe(row.gradients.length);
      const [, products] = mx.vjp(fn, tensors, [mx.array(1, "float32")]);
      for (const [i, expected] of row.gradients.entries()) {
        expectTensor(list[i]!, expected, { tolerance: 2e-5 });
        expectTensor(products[i]!, expected, { tolerance: 2e-5 });
      }
    });
  });
}
