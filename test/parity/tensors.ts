/** Input tensors of the parity tests. */

import type { Tensor } from "../../src/mlx";
import * as mx from "../../src/mlx";
import { uniform } from "./weights";

export const sizeOf = (shape: readonly number[]) => shape.reduce((product, dim) => product * dim, 1);

/** 1, 2, 3, … as float32, or their negatives. */
export function counted(shape: readonly number[], sign = 1): Tensor {
  const values = Float32Array.from({ length: sizeOf(shape) }, (_, i) => sign * (i + 1));
  return mx.array(values, "float32", shape);
}

/** The weights' uniform formula, stretched from [-1, 1) to [low, high). */
export function formula(key: string, shape: readonly number[], low = -1, high = 1): Tensor {
  const values = uniform(key, sizeOf(shape)).map((u) => low + (high - low) * ((u + 1) / 2));
  return mx.array(values, "float32", shape);
}
