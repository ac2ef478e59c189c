import { expect, test } from "bun:test";
import * as fc from "fast-check";
import * as mx from "../../mlx";
import { Linear } from "../linear";
import { keptOf, piecesOf, type Range } from ".";
import { keepInputs, keepOutputs } from "./slices";

const sizes = { inputs: 12, outputs: 20 };

/** Pieces of so many things, in any order. */
const piecesUpTo = (count: number) =>
  fc.array(
    fc.tuple(fc.nat(count - 1), fc.nat(count - 1)).map(([a, b]): Range => [Math.min(a, b), Math.max(a, b) + 1]),
    { minLength: 1, maxLength: 3 },
  );

const lengthOf = (pieces: readonly Range[]) => pieces.reduce((sum, [start, end]) => sum + end - start, 0);

test("what is kept of a layer, and kept again of that, are pieces of the whole layer's outputs and inputs", () => {
  const kept = piecesUpTo(sizes.outputs).chain((outputs) =>
    fc.tuple(fc.constant(outputs), piecesUpTo(lengthOf(outputs)), fc.nat(sizes.inputs - 1)),
  );
  fc.assert(
    fc.property(kept, ([outputs, again, start]) => {
      const layer = new Linear(sizes.inputs, sizes.outputs, { bias: false });
      const whole = () => mx.arange(sizes.inputs * sizes.outputs).reshape(sizes.outputs, sizes.inputs);
      layer.update({ weight: mx.scope(whole) });
      expect(keptOf(layer)).toEqual({ outputs: null, inputs: null });
      keepOutputs(layer, outputs);
      keepOutputs(layer, again);
      keepInputs(layer, [start, sizes.inputs]);
      const { outputs: rows, inputs: columns } = keptOf(layer);
      const expected = mx.scope(() => piecesOf(piecesOf(whole(), 0, rows), 1, columns).toList());
      expect(layer.weight.toList()).toEqual(expected as number[][]);
      layer.dispose();
    }),
    { numRuns: 50 },
  );
});
