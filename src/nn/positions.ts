/** Where in its sequence each token stands. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";

/** The positions (B, T) of `length` tokens: of rows that begin at `offset` (B), or (B, T) as they are. */
export function positionsFrom(offset: Tensor, length: number): Tensor {
  return offset.ndim === 2 ? offset : offset.expandDims(-1).add(mx.arange(length));
}
