/** Normalization of the last axis. */

import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { Module, parameter } from "./module";

/** A sum that is not made yet: the next norm makes it together with its own result, in one kernel where there is one. */
export class PendingSum {
  constructor(
    readonly x: Tensor,
    readonly delta: Tensor,
  ) {}

  value(): Tensor {
    return this.x.add(this.delta);
  }
}

/** What runs from layer to layer, (B, T, D). */
export type Residual = Tensor | PendingSum;

/** x / RMS(x) · weight, accumulated in float32. Zhang & Sennrich 2019, arXiv:1910.07467. */
export class RMSNorm extends Module {
  weight: Tensor;

  constructor(
    dims: number,
    readonly eps = 1e-5,
  ) {
    super();
    this.weight = parameter(mx.ones([dims]));
  }

  /** What normalized values are multiplied by, (dims). */
  get gain(): Tensor {
    return this.weight;
  }

  forward(x: Tensor): Tensor {
    return mx.fast.rmsNorm(x, this.gain, this.eps);
  }

  /** The residual, for what goes on, and its norm, for the next part of the layer. */
  branch(residual: Residual): [x: Tensor, normed: Tensor] {
    if (!(residual instanceof PendingSum)) return [residual, this.forward(residual)];
    return mx.fast.addRmsNorm(residual.x, residual.delta, this.gain, this.eps);
  }
}

/** RMSNorm with the weight stored as its distance from one, as Gemma does. */
export class ZeroCenteredRMSNorm extends RMSNorm {
  override get gain(): Tensor {
    return mx.add(1, this.weight);
  }
}

/** (x − mean) / σ · weight + bias. Ba et al. 2016, arXiv:1607.06450. */
export class LayerNorm extends Module {
  weight?: Tensor;
  bias?: Tensor;

  constructor(
    dims: number,
    readonly eps = 1e-5,
    { affine = true, bias = true }: { affine?: boolean; bias?: boolean } = {},
  ) {
    super();
    if (affine) this.weight = parameter(mx.ones([dims]));
    if (affine && bias) this.bias = parameter(mx.zeros([dims]));
  }

  forward(x: Tensor): Tensor {
    return mx.fast.layerNorm(x, this.weight ?? null, this.bias ?? null, this.eps);
  }
}
