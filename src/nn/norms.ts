/** Normalization of the last axis. */

import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { Module, parameter } from "./module";

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

  forward(x: Tensor): Tensor {
    return mx.fast.rmsNorm(x, this.weight, this.eps);
  }
}

/** RMSNorm with the weight stored as its distance from one, as Gemma does. */
export class ZeroCenteredRMSNorm extends RMSNorm {
  override forward(x: Tensor): Tensor {
    return mx.fast.rmsNorm(x, mx.add(1, this.weight), this.eps);
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
