/** Adam with decoupled weight decay. Loshchilov & Hutter 2019, arXiv:1711.05101. */

import type { Tensor } from "../mlx";
import * as mx from "../mlx";

/** A learning rate, or one by step (the first is 0). */
export type LearningRate = number | ((step: number) => number);

export interface AdamWOptions {
  betas?: readonly [number, number];
  eps?: number;
  weightDecay?: number;
  /** Correct the running means for their start at zero, as in the paper. MLX's default is not to. */
  biasCorrection?: boolean;
}

interface Moments {
  m: Tensor;
  v: Tensor;
}

/** Holds the running means by parameter path; they are kept tensors. */
export class AdamW {
  /** How many updates were made. */
  step = 0;
  private readonly moments = new Map<string, Moments>();
  private readonly options: Required<AdamWOptions>;

  constructor(
    readonly learningRate: LearningRate,
    { betas = [0.9, 0.999], eps = 1e-8, weightDecay = 0.01, biasCorrection = false }: AdamWOptions = {},
  ) {
    this.options = { betas, eps, weightDecay, biasCorrection };
  }

  get currentRate(): number {
    return typeof this.learningRate === "number" ? this.learningRate : this.learningRate(this.step);
  }

  /** New values of the parameters, by path. Lazy; to be called in a scope, and the results evaluated with `state`. */
  update(parameters: Iterable<readonly [string, Tensor]>, gradients: ReadonlyMap<string, Tensor>): [string, Tensor][] {
    const rate = this.currentRate;
    this.step += 1;
    const updated: [string, Tensor][] = [];
    for (const [path, parameter] of parameters) {
      const gradient = gradients.get(path);
      if (gradient) updated.push([path, this.updateOne(path, parameter, gradient, rate)]);
    }
    return updated;
  }

  private updateOne(path: string, parameter: Tensor, gradient: Tensor, rate: number): Tensor {
    const { betas, eps, weightDecay, biasCorrection } = this.options;
    const [b1, b2] = betas;
    const before = this.moments.get(path);
    const decayed = parameter.multiply(1 - rate * weightDecay);
    const m = (before?.m ?? mx.zerosLike(parameter)).multiply(b1).add(gradient.multiply(1 - b1));
    const v = (before?.v ?? mx.zerosLike(parameter)).multiply(b2).add(gradient.square().multiply(1 - b2));
    this.moments.set(path, mx.keep({ m, v }));
    if (before) mx.release(before);
    if (!biasCorrection) return decayed.subtract(m.multiply(rate).divide(v.sqrt().add(eps)));
    const scale = rate / (1 - b1 ** this.step);
    const root = v.sqrt().multiply(1 / Math.sqrt(1 - b2 ** this.step));
    return decayed.subtract(m.multiply(scale).divide(root.add(eps)));
  }

  /** All running means, for evaluation and saving: `<path>.m` and `<path>.v`. */
  get state(): [string, Tensor][] {
    return [...this.moments].flatMap(([path, { m, v }]): [string, Tensor][] => [
      [`${path}.m`, m],
      [`${path}.v`, v],
    ]);
  }

  /** Takes over running means under the names of `state`, to go on after `step` updates. They are kept. */
  load(state: Iterable<readonly [string, Tensor]>): void {
    const given = new Map(state);
    this.dispose();
    for (const [name, m] of given) {
      const path = name.endsWith(".m") ? name.slice(0, -2) : null;
      const v = path !== null && given.get(`${path}.v`);
      if (path !== null && v) this.moments.set(path, mx.keep({ m, v }));
    }
  }

  dispose(): void {
    for (const moments of this.moments.values()) mx.release(moments);
    this.moments.clear();
  }
}
