/** Activation functions, each one fused kernel on the GPU. */

import type { Tensor } from "../mlx";
import * as mx from "../mlx";

const fused = <F extends (...tensors: Tensor[]) => Tensor>(fn: F): F => mx.compile(fn, { shapeless: true });

/** x σ(x), also called Swish. */
export const silu = mx.fast.silu;

/** x Φ(x), with Φ the normal distribution's. Hendrycks & Gimpel 2016, arXiv:1606.08415. */
export const gelu = fused((x: Tensor) => x.multiply(mx.erf(x.divide(Math.SQRT2)).add(1)).divide(2));

/** GELU by tanh, off by less than 0.0005 on [−6, 6]. */
export const geluApprox = mx.fast.geluApprox;

/** The square of what is positive. So et al. 2021, arXiv:2109.08668. */
export const squaredRelu = fused((x: Tensor) => x.maximum(0).square());

/** SwiGLU: silu(gate) · x. Shazeer 2020, arXiv:2002.05202. */
export const swiglu = (gate: Tensor, x: Tensor): Tensor => mx.fast.gated("silu", gate, x);

/** gate σ(1.702 gate) · (x + 1), with the gate clipped from above and x on both sides, at a limit. */
export const clippedAt = (limit: number) =>
  fused((gate: Tensor, x: Tensor) => {
    const bounded = gate.minimum(limit);
    return mx
      .clip(x, -limit, limit)
      .add(1)
      .multiply(bounded.multiply(bounded.multiply(1.702).sigmoid()));
  });

/** gpt-oss's SwiGLU. */
export const swigluClipped = clippedAt(7);

/** SwiGLU in float32, whatever its inputs are. */
export const preciseSwiglu = fused((gate: Tensor, x: Tensor) =>
  mx.fast.gated("silu", gate.astype("float32"), x.astype("float32")),
);

/** GeGLU with the tanh approximation: gelu(gate) · x. */
export const geglu = (gate: Tensor, x: Tensor): Tensor => mx.fast.gated("gelu", gate, x);

/** SwiGLU with the gate clipped from above and x on both sides; plain SwiGLU where the limit is 0. */
export const boundedSwiglu = (limit: number) =>
  limit > 0
    ? (gate: Tensor, x: Tensor): Tensor => mx.fast.gated("silu", gate.minimum(limit), mx.clip(x, -limit, limit))
    : swiglu;

/** SwiGLU with silu(gate) clipped from above and x on both sides; plain SwiGLU where the limit is 0. */
export const swigluWithin = (limit: number) =>
  limit > 0
    ? (gate: Tensor, x: Tensor): Tensor =>
        silu(gate)
          .minimum(limit)
          .multiply(mx.clip(x, -limit, limit))
    : swiglu;
