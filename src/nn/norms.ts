/** Normalization of the last axis. */

import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { type HeldTensor, heldOr, hold } from "./held";
import { Module, parameter } from "./module";
import type { Norm } from "./residual";

/** x / RMS(x) · weight, accumulated in float32. Zhang & Sennrich 2019, arXiv:1910.07467. */
export class RMSNorm extends Module implements Norm {
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

  afterSum(x: Tensor, delta: Tensor): [sum: Tensor, normed: Tensor] {
    return mx.fast.addRmsNorm(x, delta, this.gain, this.eps);
  }
}

/** RMSNorm of each of some groups of features by itself. */
export class GroupedRMSNorm extends RMSNorm {
  constructor(
    dims: number,
    eps: number,
    readonly groups = 1,
  ) {
    super(dims, eps);
  }

  override forward(x: Tensor): Tensor {
    if (this.groups === 1) return super.forward(x);
    const byGroup = mx.unflatten(x, -1, [this.groups, -1]);
    return mx.fast.rmsNorm(byGroup, null, this.eps).flatten(-2, -1).multiply(this.weight);
  }

  override afterSum(x: Tensor, delta: Tensor): [sum: Tensor, normed: Tensor] {
    const sum = x.add(delta);
    return [sum, this.forward(sum)];
  }
}

/** RMSNorm with the weight stored as its distance from some number. */
export class OffsetRMSNorm extends RMSNorm {
  _held?: HeldTensor;
  readonly #add = (weight: Tensor) => mx.add(this.offset, weight);

  constructor(
    dims: number,
    eps: number,
    readonly offset: number,
  ) {
    super(dims, eps);
  }

  override get gain(): Tensor {
    return heldOr(this, this.#add);
  }

  /** Makes the gain now, for as long as the weight is the same. Lazy. */
  hold(): Tensor {
    return hold(this, this.#add);
  }
}

/** RMSNorm with the weight stored as its distance from one, as Gemma does. */
export class ZeroCenteredRMSNorm extends OffsetRMSNorm {
  constructor(dims: number, eps?: number) {
    super(dims, eps ?? 1e-5, 1);
  }
}

/** Makes the gains of a loaded model's norms, which would be made again for each token. */
export function holdGains(model: Module): void {
  const norms = model.namedModules().flatMap(([, module]) => (module instanceof OffsetRMSNorm ? module : []));
  mx.eval(norms.map((norm) => norm.hold()));
}

/** (x − mean) / σ · weight + bias. Ba et al. 2016, arXiv:1607.06450. */
export class LayerNorm extends Module implements Norm {
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
