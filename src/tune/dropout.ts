/** Random zeros while training. Srivastava et al. 2014, JMLR 15:1929. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { Module } from "../nn";

export class Dropout extends Module {
  /** Only then are values dropped. */
  training = false;
  private readonly kept: number;

  /** @param probability that a value becomes zero, in [0, 1); the others grow so that the mean stays */
  constructor(probability: number) {
    super();
    if (!(probability >= 0 && probability < 1)) {
      throw new RangeError(`the probability of dropout must lie in [0, 1), not ${probability}`);
    }
    this.kept = 1 - probability;
  }

  forward(x: Tensor): Tensor {
    if (!this.training || this.kept === 1) return x;
    const mask = mx.random.bernoulli(this.kept, { shape: x.shape });
    return mask.multiply(x).multiply(1 / this.kept);
  }
}

/** Turns dropout on or off in a model and all below it. */
export function setTraining(model: Module, training: boolean): void {
  for (const [, module] of model.namedModules()) if (module instanceof Dropout) module.training = training;
}
