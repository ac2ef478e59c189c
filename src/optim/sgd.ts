/** Stochastic gradient descent, with momentum where wanted. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { type LearningRate, type Memory, type Moment, Optimizer } from "./optimizer";

export interface SgdOptions {
  momentum?: number;
  /** Coupled: it is added to the gradient. */
  weightDecay?: number;
  dampening?: number;
  /** Look ahead by one step of momentum; it needs one, and no dampening. */
  nesterov?: boolean;
}

export class Sgd extends Optimizer {
  override readonly isElementwise = true;
  private readonly options: Required<SgdOptions>;

  /** @throws RangeError for Nesterov's rule without momentum or with dampening */
  constructor(
    learningRate: LearningRate,
    { momentum = 0, weightDecay = 0, dampening = 0, nesterov = false }: SgdOptions = {},
  ) {
    super(learningRate);
    if (nesterov && (momentum <= 0 || dampening !== 0)) {
      throw new RangeError("Nesterov momentum needs a momentum and no dampening");
    }
    this.options = { momentum, weightDecay, dampening, nesterov };
  }

  protected begin(parameter: Tensor): Memory {
    return this.options.momentum > 0 ? { v: mx.zerosLike(parameter) } : {};
  }

  protected change(parameter: Tensor, gradient: Tensor, memory: Memory, { rate }: Moment): [Tensor, Memory] {
    const { momentum, weightDecay, dampening, nesterov } = this.options;
    const slope = weightDecay === 0 ? gradient : gradient.add(parameter.multiply(weightDecay));
    const lr = rate.astype(slope.dtype);
    if (momentum <= 0) return [parameter.subtract(lr.multiply(slope)), memory];
    const v = memory.v!.multiply(momentum).add(dampening > 0 ? slope.multiply(1 - dampening) : slope);
    const update = nesterov ? slope.add(v.multiply(momentum)) : v;
    return [parameter.subtract(lr.multiply(update)), { v }];
  }
}
