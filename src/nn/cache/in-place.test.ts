/** Rows that are written in place: steps whose tokens are known ahead, built before any of them is computed. */
import { test } from "bun:test";
import { row } from "../../../test/parity/decode";
import { expectValues, fixture } from "../../../test/parity/fixtures";
import { type FormulaModel, formulaModel } from "../../../test/parity/formula-model";
import { makeReady } from "../../convert/ready";
import * as mx from "../../mlx";
import { architecture } from "../../models/registry";

const tokens = [7, 201, 42, 99, 13, 250, 128, 64];
const orders: [string, (steps: mx.Tensor[]) => mx.Tensor[][]][] = [
  ["all at once", (steps) => [steps]],
  ["all at once, the last one first", (steps) => [[...steps].reverse()]],
  ["the last one alone", (steps) => [steps.slice(-1)]],
  ["by twos", (steps) => [0, 2, 4, 6].map((i) => steps.slice(i, i + 2))],
];

for (const name of ["llama", "qwen3", "mixtral", "gemma2"]) {
  test.each(orders)(`${name}: %s`, async (_, order) => {
    const recipe = fixture<FormulaModel>(`models/${name}.json`);
    const model = await formulaModel(recipe);
    makeReady(model, await architecture(recipe.config.model_type));
    mx.scope(() => {
      const whole = model.forward(row(tokens));
      const cache = model.makeCache();
      const steps = tokens.map((token) => model.forward(row([token]), { cache }));
      for (const together of order(steps)) mx.eval(together);
      expectValues(mx.concatenate(steps, { axis: 1 }).toArray(), whole.toArray() as Float32Array, { tolerance: 1e-4 });
      for (const layer of cache) layer.dispose();
    });
    model.dispose();
  });
}
