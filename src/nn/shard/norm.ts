/** A norm over features of which each rank has a part. */
import type { distributed, Tensor } from "../../mlx";
import * as mx from "../../mlx";
import { RMSNorm } from "../norms";
import type { Range, Split } from "./split";

export interface PartOptions {
  /** How much this rank's features count: one over the number of ranks that have the same ones, or nothing. */
  share?: number;
  /** How many groups of features there are, each normalized by itself, and which of them this rank has some of. */
  groups?: { count: number; own: Range };
}

/** x / RMS(all x) · weight, of x (…, this rank's features). Heads that several ranks have count once. */
export class RMSNormOfParts extends RMSNorm {
  readonly #group: distributed.Group;
  /** Features that are normalized together. */
  readonly #dims: number;
  readonly #share: number;
  readonly #groups: { count: number; own: Range };

  constructor(whole: RMSNorm, [start, end]: Range, { group }: Split, options: PartOptions = {}) {
    super(end - start, whole.eps);
    this.#group = group;
    this.#share = options.share ?? 1;
    this.#groups = options.groups ?? { count: 1, own: [0, 1] };
    this.#dims = whole.weight.dim(0) / this.#groups.count;
    this.update([["weight", mx.scope(() => mx.contiguous(mx.sliceAxis(whole.weight, 0, start, end)))]]);
    whole.dispose();
  }

  override forward(x: Tensor): Tensor {
    const { own } = this.#groups;
    const byGroup = x.astype("float32").unflatten(-1, [own[1] - own[0], -1]);
    const sums = this.#sumsOf(byGroup.square().sum({ axis: -1 })).expandDims(-1);
    const normed = byGroup.multiply(sums.divide(this.#dims).add(this.eps).rsqrt()).flatten(-2, -1);
    return normed.astype(x.dtype).multiply(this.weight);
  }

  /** Over all ranks: (…, this rank's groups) → the same */
  #sumsOf(parts: Tensor): Tensor {
    const { count, own } = this.#groups;
    const counted = this.#share === 1 ? parts : parts.multiply(this.#share);
    const none: [number, number][] = Array.from({ length: parts.ndim - 1 }, () => [0, 0]);
    const all = count === 1 ? counted : mx.pad(counted, [...none, [own[0], count - own[1]]]);
    const sums = mx.distributed.allSum(all, { group: this.#group });
    return count === 1 ? sums : mx.sliceAxis(sums, -1, ...own);
  }
}
