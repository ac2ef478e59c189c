/** Linear algebra. Factorizations run on the CPU whatever the default device. */
import { onCpu } from "./devices";
import * as abi from "./generated/ops";
import { wrap, wrapAll } from "./operand";
import type { Tensor } from "./tensor";

export interface Norm {
  /** A number p, Infinity, -Infinity, "fro" or "nuc"; 2 (Frobenius for matrices) where absent. */
  ord?: number | "fro" | "nuc";
  axis?: number | readonly number[];
  keepdims?: boolean;
}

export function norm(x: Tensor, { ord, axis, keepdims = false }: Norm = {}): Tensor {
  const axes = axis === undefined ? null : typeof axis === "number" ? [axis] : axis;
  if (ord === undefined) return wrap(abi.linalg_norm(x.handle, axes, keepdims));
  if (typeof ord === "number") return wrap(abi.linalg_norm_ord(x.handle, ord, axes, keepdims));
  return wrap(abi.linalg_norm_named(x.handle, ord, axes, keepdims));
}

type Pair = [Tensor, Tensor];

export const qr = (x: Tensor): Pair => onCpu(() => wrapAll(abi.linalg_qr(x.handle)) as Pair);

/** x = U · diag(S) · Vt. */
export const svd = (x: Tensor): [Tensor, Tensor, Tensor] =>
  onCpu(() => wrapAll(abi.linalg_svd(x.handle, true)) as [Tensor, Tensor, Tensor]);

/** Singular values alone. */
export const svdvals = (x: Tensor): Tensor => onCpu(() => wrapAll(abi.linalg_svd(x.handle, false))[0]!);

export const inv = (x: Tensor): Tensor => onCpu(() => wrap(abi.linalg_inv(x.handle)));
export const pinv = (x: Tensor): Tensor => onCpu(() => wrap(abi.linalg_pinv(x.handle)));
export const triInv = (x: Tensor, { upper = false } = {}): Tensor =>
  onCpu(() => wrap(abi.linalg_tri_inv(x.handle, upper)));

/** The lower (or upper) triangle L with L·Lᵀ = x. */
export const cholesky = (x: Tensor, { upper = false } = {}): Tensor =>
  onCpu(() => wrap(abi.linalg_cholesky(x.handle, upper)));

/** The inverse of a matrix from its Cholesky factor. */
export const choleskyInv = (x: Tensor, { upper = false } = {}): Tensor =>
  onCpu(() => wrap(abi.linalg_cholesky_inv(x.handle, upper)));

/** Permutation indices, L, U. */
export const lu = (x: Tensor): [Tensor, Tensor, Tensor] =>
  onCpu(() => wrapAll(abi.linalg_lu(x.handle)) as [Tensor, Tensor, Tensor]);

/** L and U packed in one matrix, and pivots. */
export const luFactor = (x: Tensor): Pair => onCpu(() => wrapAll(abi.linalg_lu_factor(x.handle)) as Pair);

export const solve = (a: Tensor, b: Tensor): Tensor => onCpu(() => wrap(abi.linalg_solve(a.handle, b.handle)));

export const solveTriangular = (a: Tensor, b: Tensor, { upper = false } = {}): Tensor =>
  onCpu(() => wrap(abi.linalg_solve_triangular(a.handle, b.handle, upper)));

export const cross = (a: Tensor, b: Tensor, { axis = -1 } = {}): Tensor =>
  wrap(abi.linalg_cross(a.handle, b.handle, axis));

/** Eigenvalues and right eigenvectors, complex64. */
export const eig = (x: Tensor): Pair => onCpu(() => wrapAll(abi.linalg_eig(x.handle)) as Pair);
export const eigvals = (x: Tensor): Tensor => onCpu(() => wrap(abi.linalg_eigvals(x.handle)));

interface Triangle {
  /** Which triangle of the symmetric matrix is read. */
  uplo?: "L" | "U";
}

/** Eigenvalues, ascending, and eigenvectors of a symmetric matrix. */
export const eigh = (x: Tensor, { uplo = "L" }: Triangle = {}): Pair =>
  onCpu(() => wrapAll(abi.linalg_eigh(x.handle, uplo)) as Pair);
export const eigvalsh = (x: Tensor, { uplo = "L" }: Triangle = {}): Tensor =>
  onCpu(() => wrap(abi.linalg_eigvalsh(x.handle, uplo)));

export const det = (x: Tensor): Tensor => onCpu(() => wrap(abi.linalg_det(x.handle)));

/** Sign and log |det|. */
export const slogdet = (x: Tensor): Pair => onCpu(() => wrapAll(abi.linalg_slogdet(x.handle)) as Pair);
