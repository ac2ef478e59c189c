/** Adam, with decoupled weight decay. Kingma & Ba 2015, arXiv:1412.6980; Loshchilov & Hutter 2019, arXiv:1711.05101. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { type LearningRate, type Memory, type Moment, Optimizer } from "./optimizer";

export interface AdamWOptions {
  betas?: readonly [number, number];
  eps?: number;
  /** 0 makes it plain Adam. */
  weightDecay?: number;
  /** Correct the running means for their start at zero, as in the paper. MLX's default is not to. */
  biasCorrection?: boolean;
}

export class AdamW extends Optimizer {
  override readonly isElementwise = true;
  private readonly options: Required<AdamWOptions>;

  constructor(
    learningRate: LearningRate,
    { betas = [0.9, 0.999], eps = 1e-8, weightDecay = 0.01, biasCorrection = false }: AdamWOptions = {},
  ) {
    super(learningRate);
    this.options = { betas, eps, weightDecay, biasCorrection };
  }

  protected begin(parameter: Tensor): Memory {
    return { m: mx.zerosLike(parameter), v: mx.zerosLike(parameter) };
  }

  protected change(parameter: Tensor, gradient: Tensor, memory: Memory, { rate, step }: Moment): [Tensor, Memory] {
    const { betas, eps, weightDecay, biasCorrection } = this.options;
    const [b1, b2] = betas;
    const { dtype } = gradient;
    const lr = rate.astype(dtype);
    const decayed = weightDecay === 0 ? parameter : parameter.multiply(mx.subtract(1, lr.multiply(weightDecay)));
    const m = memory.m!.multiply(b1).add(gradient.multiply(1 - b1));
    const v = memory.v!.multiply(b2).add(gradient.square().multiply(1 - b2));
    if (!biasCorrection) return [decayed.subtract(lr.multiply(m).divide(v.sqrt().add(eps))), { m, v }];
    const first = lr.divide(mx.subtract(1, mx.power(b1, step))).astype(dtype);
    const second = mx.rsqrt(mx.subtract(1, mx.power(b2, step))).astype(dtype);
    return [decayed.subtract(first.multiply(m).divide(v.sqrt().multiply(second).add(eps))), { m, v }];
  }
}
