/** Momentum whose matrices are made orthogonal. Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/ */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { type LearningRate, type Memory, type Moment, Optimizer } from "./optimizer";

export interface MuonOptions {
  momentum?: number;
  /** Coupled: it is added to the gradient. */
  weightDecay?: number;
  nesterov?: boolean;
  /** Iterations of Newton and Schulz. */
  steps?: number;
}

/** Coefficients of the iteration's quintic polynomial: steepest at zero, so that few steps suffice. */
const [a, b, c] = [3.4445, -4.775, 2.0315];

/** The nearest orthogonal matrix, roughly: singular values end between 0.7 and 1.2. (M, N) → (M, N) */
function orthogonal(matrix: Tensor, steps: number): Tensor {
  const tall = matrix.dim(0) > matrix.dim(1);
  let x = tall ? matrix.transpose() : matrix;
  x = x.divide(x.square().sum({ keepdims: true }).sqrt().add(1e-7));
  for (let n = 0; n < steps; n++) {
    const gram = x.matmul(x.transpose());
    const polynomial = mx.addmm(gram.multiply(b), gram, gram, { alpha: c });
    x = mx.addmm(x.multiply(a), polynomial, x);
  }
  return tall ? x.transpose() : x;
}

export class Muon extends Optimizer {
  private readonly options: Required<MuonOptions>;

  constructor(
    learningRate: LearningRate,
    { momentum = 0.95, weightDecay = 0.01, nesterov = true, steps = 5 }: MuonOptions = {},
  ) {
    super(learningRate);
    this.options = { momentum, weightDecay, nesterov, steps };
  }

  protected begin(parameter: Tensor): Memory {
    return { v: mx.zerosLike(parameter) };
  }

  protected change(parameter: Tensor, gradient: Tensor, memory: Memory, { rate }: Moment): [Tensor, Memory] {
    const { momentum, weightDecay, nesterov, steps } = this.options;
    const slope = weightDecay === 0 ? gradient : gradient.add(parameter.multiply(weightDecay));
    const v = memory.v!.multiply(momentum).add(slope.multiply(1 - momentum));
    const update = nesterov ? slope.multiply(1 - momentum).add(v.multiply(momentum)) : v;
    const lr = rate.astype(slope.dtype);
    if (update.ndim < 2) return [parameter.subtract(lr.multiply(update)), { v }];
    const flat = orthogonal(update.ndim > 2 ? update.reshape(update.dim(0), -1) : update, steps);
    const scale = Math.sqrt(Math.max(1, update.dim(-2) / update.dim(-1)));
    return [parameter.subtract(lr.multiply(scale).multiply(flat.reshape(...update.shape))), { v }];
  }
}
