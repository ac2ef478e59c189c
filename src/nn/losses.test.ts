import { describe, expect, test } from "bun:test";
import { expectValues } from "../../test/parity/fixtures";
import * as mx from "../mlx";
import { type CrossEntropy, crossEntropy } from "./losses";

const logits = () =>
  mx.array(
    [
      [2, -1, 0.5],
      [-1, 2, 100],
    ],
    "float32",
  );
const targets = () => mx.array([0, 1], "uint32");

const values = (options: CrossEntropy, given = targets()) => crossEntropy(logits(), given, options).toArray();

describe("crossEntropy: Python's values", () => {
  const check = (name: string, compute: () => ArrayLike<number | bigint>, expected: number[]) =>
    test(name, () => mx.scope(() => expectValues(compute(), expected)));

  check("class indices", () => values({}), [0.24131133, 98]);
  check("label smoothing", () => values({ labelSmoothing: 0.1 }), [0.39131135, 94.83333]);
  check("mean", () => values({ reduction: "mean" }), [49.120655]);
  check("weights and sum", () => values({ weights: mx.array([2, 0.5], "float32"), reduction: "sum" }), [49.482624]);
  check("another axis", () => values({ axis: 0 }, mx.array([0, 1, 0], "uint32")), [0.04858733, 0.04858733, 99.5]);
  const probabilities = () =>
    mx.array(
      [
        [0.5, 0.25, 0.25],
        [0, 0, 1],
      ],
      "float32",
    );
  check("probabilities", () => values({}, probabilities()), [1.3663113, 0]);
  check(
    "gradient",
    () =>
      mx
        .grad((x: mx.Tensor) => crossEntropy(x, targets(), { reduction: "mean" }))(logits())
        .toArray(),
    [-0.107201487, 0.01955629, 0.0876452, 0, -0.5, 0.5],
  );
});

test("shapes that do not fit and smoothing out of range are errors", () => {
  mx.scope(() => {
    expect(() => values({}, mx.array([0], "uint32"))).toThrow("targets (1) do not fit logits (2, 3)");
    expect(() => values({ weights: mx.ones([3]) })).toThrow("weights (3) do not fit the loss (2)");
    expect(() => values({ labelSmoothing: 1 })).toThrow("labelSmoothing must lie in [0, 1), not 1");
  });
});
