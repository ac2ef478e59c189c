/** How new weights are drawn: in the order and with the calls of mlx.nn, so that a seed gives Python's numbers. */

import type { Tensor } from "../mlx";
import * as mx from "../mlx";

/** Uniform on ±√(1 / fanIn), lazily. */
export function uniformWeight(shape: readonly number[], fanIn: number): Tensor {
  const bound = Math.sqrt(1 / fanIn);
  return mx.scope(() => mx.random.uniform({ low: -bound, high: bound, shape }));
}

/** Normal with standard deviation √(1 / dims), lazily. */
export function normalWeight(shape: readonly number[], dims: number): Tensor {
  return mx.scope(() => mx.random.normal({ shape, scale: Math.sqrt(1 / dims) }));
}
