/** Keeping gradients in bounds. */

import type { Tensor } from "../mlx";
import * as mx from "../mlx";

/** Scales the gradients down so that their common L2 norm is at most `maxNorm`; returns them and the norm before. */
export function clipGradNorm(
  gradients: ReadonlyMap<string, Tensor>,
  maxNorm: number,
): [Map<string, Tensor>, norm: Tensor] {
  const squares = [...gradients.values()].map((gradient) => gradient.astype("float32").square().sum());
  const norm = mx.stack(squares).sum().sqrt();
  const factor = mx.minimum(mx.divide(maxNorm, norm.add(1e-6)), 1);
  const scaled = [...gradients].map(([path, gradient]): [string, Tensor] => [
    path,
    gradient.multiply(factor.astype(gradient.dtype)),
  ]);
  return [new Map(scaled), norm];
}
