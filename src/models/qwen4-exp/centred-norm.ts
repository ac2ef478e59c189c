/** Qwen 4 Exp's norm. */
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import { ZeroCenteredRMSNorm } from "../../nn";

/** RMSNorm, in float32 throughout, of each of the streams (…, S, D) or of one (…, D). */
export class CentredNorm extends ZeroCenteredRMSNorm {
  override forward(x: Tensor): Tensor {
    const gain = this.weight.astype("float32").add(1).reshape(-1, x.dim(-1));
    return mx.fast.rmsNorm(x.astype("float32"), null, this.eps).multiply(gain).astype(x.dtype);
  }
}
