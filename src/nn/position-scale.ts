/**
 * Queries that grow with their position, so that attention over a long context stays sharp: by 1 + β ln(1 + ⌊position / period⌋).
 * Meta AI 2025, Llama 4's attention temperature; Nakanishi 2025, arXiv:2501.19399.
 */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { positionsFrom } from "./positions";

export interface PositionScale {
  beta: number;
  /** The factor is 1 up to this position. */
  period: number;
}

/** Queries (B, H, T, D) by their factors. The first position is `offset`, one for all, one for each of B or (B, T). */
export function scaleByPosition(queries: Tensor, offset: number | Tensor, { beta, period }: PositionScale): Tensor {
  const length = queries.dim(2);
  if (typeof offset === "number") {
    if (offset + length <= period) return queries;
    if (length === 1) return queries.multiply(1 + beta * Math.log(1 + Math.floor(offset / period)));
  }
  const positions = typeof offset === "number" ? mx.arange(length).add(offset) : positionsFrom(offset, length);
  const steps = positions.divide(period).floor();
  const factors = steps.add(1).log().multiply(beta).add(1).astype(queries.dtype);
  return queries.multiply(factors.ndim === 2 ? factors.expandDims([1, 3]) : factors.expandDims(-1));
}
