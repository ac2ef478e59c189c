/** A checkpoint's names and layouts become a model's own once: what a saved model holds is read back unchanged. */
import { expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import * as mx from "../../src/mlx";
import { architecture } from "../../src/models/registry";
import { fixture } from "./fixtures";
import type { FormulaModel } from "./formula-model";

for (const file of readdirSync(new URL("../fixtures/models/", import.meta.url)).sort()) {
  test(file.replace(".json", ""), async () => {
    const { config, weights } = fixture<FormulaModel>(`models/${file}`);
    const { Args, Model } = await architecture(config.model_type);
    const model = new Model(Args.parse(config));
    mx.scope(() => {
      const draw = ([name, shape]: [string, number[]]): [string, mx.Tensor] => [name, mx.random.normal({ shape })];
      const once = model.sanitize(new Map(Object.entries(weights).map(draw)));
      const own = new Map(model.namedParameters().map(([name, { shape }]) => [name, shape]));
      for (const [name, { shape }] of once) expect([name, own.get(name)]).toEqual([name, [...shape]]);
      const twice = model.sanitize(new Map(once));
      expect([...twice.keys()].sort()).toEqual([...once.keys()].sort());
      for (const [name, weight] of twice) expect(mx.arrayEqual(weight, once.get(name)!).item()).toBe(1);
    });
    model.dispose();
  });
}
