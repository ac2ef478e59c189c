/**
 * The heart of GPTQ: a weight is rounded column by column, and each column's error is made good in those that follow, as
 * far as the inputs' second moments say that they can. Frantar et al. 2022, arXiv:2210.17323.
 */
import { isLackOfMemory } from "../errors";
import { breathe } from "../macrotask";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { packCodes } from "./pack-codes";
import { checkStopped, resumeHint } from "./stopped";

/** How much is added to the diagonal, as a part of its mean: as little as gives a factor. */
const dampings = [1e-2, 1e-1, 1];

/**
 * The upper Cholesky factor of the inverse of a damped H (K, K) = Σ xᵀx, kept; null where there is none: H is not finite,
 * or zero.
 *
 * With J the matrix that reverses, H = JLLᵀJ gives H⁻¹ = RᵀR for R = JL⁻¹J: one factor of H, and no inverse to factor
 * again.
 */
export function inverseFactor(H: Tensor): Tensor | null {
  const mean = mx.scope(() => mx.diag(H).mean().item());
  if (!Number.isFinite(mean) || mean <= 0) return null;
  for (const damping of dampings) {
    const R = mx.keep(mx.scope(() => factorOf(H, mean * damping)));
    if (isSound(R)) return R;
    mx.release(R);
  }
  return null;
}

function factorOf(H: Tensor, damping: number): Tensor {
  const reversed = [mx.slice(null, null, -1), mx.slice(null, null, -1)] as const;
  const L = mx.linalg.cholesky(H.add(mx.eye(H.dim(0)).multiply(damping)).at(...reversed));
  return mx.contiguous(mx.linalg.triInv(L).at(...reversed));
}

/** Whether the factor could be made: MLX says so in its numbers, or by an error. */
function isSound(R: Tensor): boolean {
  try {
    mx.eval(R);
    return mx.scope(() => mx.isfinite(R).all().logicalAnd(mx.diag(R).greater(0).all()).item() === 1);
  } catch (error) {
    if (error instanceof mx.MlxError && !isLackOfMemory(error)) return false;
    throw error;
  }
}

export interface Columns {
  bits: number;
  groupSize: number;
  /** The type that scales and biases are saved in: errors are those of what is saved. */
  dtype: mx.Dtype;
  signal?: AbortSignal;
}

/** An affine weight, all kept. */
export interface AffineWeight {
  /** (N, K · bits / 32), uint32 */
  weight: Tensor;
  /** (N, K / groupSize) */
  scales: Tensor;
  biases: Tensor;
}

/**
 * Rounds W (N, K) with the factor R (K, K) of its inputs.
 * @throws UserError where the signal ends the work
 */
export async function quantizeColumns(
  W: Tensor,
  R: Tensor,
  { bits, groupSize, dtype, signal }: Columns,
): Promise<AffineWeight> {
  const K = W.dim(1);
  // Columns as rows: each is then contiguous, and so is what is left of them.
  let rest = mx.keep(mx.scope(() => mx.contiguous(W.astype("float32").T)));
  const done: { codes: Tensor; scales: Tensor; biases: Tensor }[] = [];
  try {
    for (let from = 0; from < K; from += groupSize) {
      checkStopped(signal, resumeHint);
      const next = mx.keep(mx.scope(() => quantizeGroup(rest, R, from, { bits, groupSize, dtype })));
      mx.release(rest);
      const { rest: left, ...group } = next;
      rest = left;
      done.push(group);
      mx.eval(next);
      await breathe();
    }
    const affine = mx.keep(
      mx.scope(() => {
        const joined = (name: "codes" | "scales" | "biases") => mx.concatenate(done.map((group) => group[name])).T;
        return {
          weight: packCodes(joined("codes"), bits),
          scales: mx.contiguous(joined("scales")),
          biases: mx.contiguous(joined("biases")),
        };
      }),
    );
    mx.eval(affine);
    return affine;
  } finally {
    mx.release([rest, done]);
  }
}

/** Rounds the first group of the columns that are left (K − from, N), and corrects the others. */
function quantizeGroup(columns: Tensor, R: Tensor, from: number, { bits, groupSize, dtype }: Columns) {
  const group = columns.at(mx.slice(0, groupSize));
  const [, scales, biases] = mx.quantize(group.T, { bits, groupSize }).map((part) => part!.T.astype(dtype));
  const [scale, bias] = [scales!.astype("float32"), biases!.astype("float32")];
  // R's rows and columns of this group, a column of R at a time as (…, 1).
  const factor = R.at(mx.slice(from, from + groupSize)).T;
  const codes: Tensor[] = [];
  const errors: Tensor[] = [];
  let open = group;
  for (let k = 0; k < groupSize; k++) {
    const w = open.at(mx.slice(0, 1));
    const column = factor.at(mx.slice(from + k, from + groupSize), mx.slice(k, k + 1));
    const code = mx.clip(w.subtract(bias).divide(scale).round(), 0, 2 ** bits - 1);
    const error = w.subtract(code.multiply(scale).add(bias)).divide(column.at(mx.slice(0, 1)));
    codes.push(code);
    errors.push(error);
    if (k + 1 < groupSize) open = open.at(mx.slice(1)).subtract(column.at(mx.slice(1)).multiply(error));
  }
  const rest = columns.at(mx.slice(groupSize));
  const following = factor.at(mx.slice(from + groupSize));
  return {
    codes: mx.concatenate(codes).astype("uint8"),
    scales: scales!,
    biases: biases!,
    rest: rest.size === 0 ? rest : rest.subtract(following.matmul(mx.concatenate(errors))),
  };
}
