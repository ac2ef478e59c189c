/** A norm over features of which each rank has a part. */
import type { distributed, Tensor } from "../../mlx";
import * as mx from "../../mlx";
import { RMSNorm } from "../norms";
import type { Range, Split } from "./split";

/** x / RMS(all x) · weight, of x (…, this rank's features). Heads that several ranks have count once. */
export class RMSNormOfParts extends RMSNorm {
  readonly #group: distributed.Group;
  readonly #dims: number;
  /** One over the number of ranks that have the same features. */
  readonly #share: number;

  constructor(whole: RMSNorm, [start, end]: Range, { group }: Split, share = 1) {
    super(end - start, whole.eps);
    this.#group = group;
    this.#dims = whole.weight.dim(0);
    this.#share = share;
    this.update([["weight", mx.scope(() => mx.contiguous(mx.sliceAxis(whole.weight, 0, start, end)))]]);
    whole.dispose();
  }

  override forward(x: Tensor): Tensor {
    const wide = x.astype("float32");
    const own = wide.square().sum({ axis: -1, keepdims: true });
    const all = mx.distributed.allSum(this.#share === 1 ? own : own.multiply(this.#share), { group: this.#group });
    const normed = wide.multiply(all.divide(this.#dims).add(this.eps).rsqrt());
    return normed.astype(x.dtype).multiply(this.weight);
  }
}
