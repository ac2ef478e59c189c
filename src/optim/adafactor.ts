/** Adafactor: of a matrix's squared gradients it remembers only the means of rows and columns. Shazeer & Stern 2018, arXiv:1804.04235. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { type LearningRate, type Memory, type Moment, Optimizer, rms } from "./optimizer";

export interface AdafactorOptions {
  /** Added to squared gradients; the least scale of a parameter. */
  eps?: readonly [number, number];
  /** The largest root mean square of an update before the learning rate. */
  clipThreshold?: number;
  decayRate?: number;
  /** Keep a running mean of updates too. */
  beta1?: number | null;
  weightDecay?: number;
  /** Scale the learning rate by the parameter's root mean square. */
  scaleParameter?: boolean;
  /** Take 1/√step for the learning rate, at most 0.01, in place of the one that is given. */
  relativeStep?: boolean;
  /** Let that grow from 10⁻⁶ per step. */
  warmupInit?: boolean;
}

export class Adafactor extends Optimizer {
  private readonly options: Required<AdafactorOptions>;

  constructor(learningRate: LearningRate, options: AdafactorOptions = {}) {
    super(learningRate);
    const { eps = [1e-30, 1e-3], clipThreshold = 1, decayRate = -0.8, beta1 = null, weightDecay = 0 } = options;
    const { scaleParameter = true, relativeStep = true, warmupInit = false } = options;
    this.options = {
      ...{ eps, clipThreshold, decayRate, beta1, weightDecay },
      ...{ scaleParameter, relativeStep, warmupInit },
    };
  }

  protected begin(parameter: Tensor): Memory {
    const { shape, dtype } = parameter;
    const squares: Memory =
      parameter.ndim < 2
        ? { exp_avg_sq: mx.zerosLike(parameter) }
        : {
            exp_avg_sq_row: mx.zeros(shape.slice(0, -1), dtype),
            exp_avg_sq_col: mx.zeros([...shape.slice(0, -2), ...shape.slice(-1)], dtype),
          };
    return this.options.beta1 === null ? squares : { ...squares, exp_avg: mx.zerosLike(parameter) };
  }

  private rateOf(parameter: Tensor, { rate, step }: Moment): Tensor {
    const { eps, scaleParameter, relativeStep, warmupInit } = this.options;
    const most = warmupInit ? step.multiply(1e-6) : mx.array(1e-2);
    const size = (relativeStep ? mx.minimum(most, mx.rsqrt(step)) : rate).astype(parameter.dtype);
    return scaleParameter ? mx.maximum(eps[1], rms(parameter)).multiply(size) : size;
  }

  protected change(parameter: Tensor, gradient: Tensor, memory: Memory, moment: Moment): [Tensor, Memory] {
    const { eps, clipThreshold, decayRate, beta1, weightDecay } = this.options;
    const rate = this.rateOf(parameter, moment);
    const beta2 = mx.subtract(1, mx.power(moment.step, decayRate).astype(parameter.dtype));
    const rest = mx.subtract(1, beta2);
    const squares = gradient.square().add(eps[0]);
    const mean = (name: string, value: Tensor) => beta2.multiply(memory[name]!).add(rest.multiply(value));

    let after: Memory;
    let update: Tensor;
    if (gradient.ndim >= 2) {
      const row = mean("exp_avg_sq_row", squares.mean({ axis: -1 }));
      const column = mean("exp_avg_sq_col", squares.mean({ axis: -2 }));
      const ofRows = mx.rsqrt(row.divide(row.mean({ axis: -1, keepdims: true })));
      update = ofRows.expandDims(-1).multiply(mx.rsqrt(column).expandDims(-2)).multiply(gradient);
      after = { exp_avg_sq_row: row, exp_avg_sq_col: column };
    } else {
      const average = mean("exp_avg_sq", squares);
      update = mx.rsqrt(average).multiply(gradient);
      after = { exp_avg_sq: average };
    }
    update = rate.multiply(update.divide(mx.maximum(1, rms(update).divide(clipThreshold))));
    if (beta1 !== null) {
      update = memory.exp_avg!.multiply(beta1).add(update.multiply(1 - beta1));
      after = { ...after, exp_avg: update };
    }
    const decayed = weightDecay === 0 ? parameter : parameter.add(parameter.multiply(rate.multiply(-weightDecay)));
    return [decayed.subtract(update), after];
  }
}
