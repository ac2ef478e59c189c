/** A seed set before loading must give Python's tokens, so building a model must draw what Python's draws. */
import { expect, test } from "bun:test";
import { expectValues, fixture } from "../../test/parity/fixtures";
import * as mx from "../mlx";
import { quantize } from "../nn";
import { createModel } from ".";

interface Row {
  name: string;
  config: Record<string, unknown>;
  /** The first two values of each. */
  weights: Record<string, [number, number]>;
  key: [number, number];
  quantizedKey: [number, number];
}

for (const { name, config, weights, key, quantizedKey } of fixture<Row[]>("draws.json")) {
  test(`${name}: Python's weights, and its key after building and quantizing`, async () => {
    mx.random.seed(42);
    const model = await createModel(config, "a test");
    expect(mx.random.state.get().toList()).toEqual(key);
    const parameters = new Map(model.namedParameters());
    for (const [path, expected] of Object.entries(weights)) {
      expectValues(parameters.get(path)!.toArray().slice(0, 2), expected, { tolerance: 1e-6 });
    }
    quantize(model, { groupSize: 32, bits: 4 });
    expect(mx.random.state.get().toList()).toEqual(quantizedKey);
    model.dispose();
  });
}
