/** Rounding to few bits and back: mlx-lm's numbers, and gradients as if there were none. */
import { describe, expect, test } from "bun:test";
import { expectValues, fixture, float32 } from "../../test/parity/fixtures";
import * as mx from "../mlx";
import { coarse4, coarse4ByE4m3, coarse8 } from ".";

interface Fixture {
  inputs: string;
  shape: number[];
  rounded: Record<string, string>;
}

const { inputs, shape, rounded } = fixture<Fixture>("rounding.json");
const draw = () => mx.array(float32(inputs), "float32", shape);

describe.each(Object.entries({ coarse8, coarse4, coarse4ByE4m3 }))("%s", (name, round) => {
  test("rounds as mlx-lm does, to the bit", () => {
    mx.scope(() => expectValues(round(draw()).toArray(), float32(rounded[name]!), { tolerance: 0 }));
  });

  test("keeps the dtype, and numbers that are no whole blocks", () => {
    mx.scope(() => {
      expect(round(mx.ones([2, 64], "bfloat16")).dtype).toBe("bfloat16");
      const odd = mx.random.normal({ shape: [2, 24] });
      expect(mx.arrayEqual(round(odd), odd).item()).toBe(1);
    });
  });

  test("has the gradient of what it rounds", () => {
    mx.scope(() => {
      const weights = mx.random.normal({ shape });
      const [, [gradient]] = mx.valueAndGrad(([x]: mx.Tensor[]) => round(x!).multiply(weights).sum())([draw()]) as [
        unknown,
        [mx.Tensor],
      ];
      expect(mx.arrayEqual(gradient, weights).item()).toBe(1);
    });
  });
});
