/** Products with the matrix of each token's expert. */

import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { nvfp4Largest, type Packing } from "./linear";

/**
 * x (…, M, K) × weight[indices]ᵀ, weight (experts, N, K), indices (…) → (…, M, N). `sorted`: the indices ascend.
 *
 * MLX's kernel for the CPU knows float32 only, so half-precision weights are widened there. Few uses of experts: only
 * the matrices in use, once for each use. Many: the whole weight, which lives until this product is done.
 */
export function expertProducts(x: Tensor, weight: Tensor, indices: Tensor, sorted: boolean): Tensor {
  const direct = weight.dtype === "float32" || mx.defaultDevice() === "gpu";
  if (direct) return mx.gatherMm(x, transposed(weight), { rhsIndices: indices, sortedIndices: sorted });

  const few = indices.size < weight.dim(0);
  const used = few ? weight.take(indices.flatten(), 0) : weight;
  const rhsIndices = few ? mx.arange(indices.size).astype("uint32").reshape(indices.shape) : indices;
  const product = mx.gatherMm(x.astype("float32"), transposed(used.astype("float32")), {
    rhsIndices,
    sortedIndices: sorted,
  });
  return product.astype(x.dtype);
}

interface PackedExperts {
  weight: Tensor;
  scales: Tensor;
  biases?: Tensor;
  /** (experts), float32 */
  global_scale?: Tensor;
}

/**
 * `expertProducts` with packed weights. MLX's operation knows global scales on GPUs only: on the CPU the float32 product is
 * multiplied by them, and rounded once.
 */
export function packedProducts(
  x: Tensor,
  { weight, scales, biases, global_scale: globalScale }: PackedExperts,
  indices: Tensor,
  { sorted, ...how }: Packing & { sorted: boolean },
): Tensor {
  const options = { ...how, rhsIndices: indices, sortedIndices: sorted };
  if (!globalScale) return mx.gatherQmm(x, weight, scales, biases ?? null, options);
  if (mx.defaultDevice() === "gpu") return mx.gatherQmm(x, weight, scales, null, { ...options, globalScale });
  const factors = globalScale.divide(nvfp4Largest).take(indices, 0).expandDims([-1, -2]);
  return mx.gatherQmm(x.astype("float32"), weight, scales, null, options).multiply(factors).astype(x.dtype);
}

const transposed = (weight: Tensor) => weight.swapaxes(-1, -2);
