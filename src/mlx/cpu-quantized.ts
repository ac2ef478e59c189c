/**
 * Products of many rows with a quantized weight on the CPU. MLX's own is one scalar loop a row; in float32 it is faster
 * to unpack the weight once, a slice of its outputs at a time, and leave the product to BLAS.
 */

import { indexInto, slice } from "./indexing";
import { matmul } from "./products";
import { concatenate, transpose } from "./shaping";
import type { Tensor } from "./tensor";

/** From so many rows on, unpacking is worth it for every number of bits. */
const enoughRows = 8;

/** How many bytes of a weight are unpacked at a time. */
const sliceBytes = 16 << 20;

/** Whether `unpackedMatmul` does what `quantizedMatmul` would, and sooner. */
export function isWorthUnpacking(x: Tensor, w: Tensor, scales: Tensor, biases: Tensor | null): boolean {
  if (x.dtype !== "float32" || w.ndim !== 2 || x.ndim < 2 || x.size < enoughRows * x.dim(-1)) return false;
  return biases === null || scales.dtype === "float32";
}

/** x (…, M, K) × wᵀ → (…, M, N) for w of N quantized rows; `unpack` gives some of them in float32, (n, K). */
export function unpackedMatmul(
  x: Tensor,
  [w, scales, biases]: readonly [w: Tensor, scales: Tensor, biases: Tensor | null],
  unpack: (w: Tensor, scales: Tensor, biases: Tensor | null) => Tensor,
): Tensor {
  const outputs = w.dim(0);
  const step = Math.max(1, Math.floor(sliceBytes / 4 / x.dim(-1)));
  const product = (from: number) => {
    const rows = (packed: Tensor) => (outputs > step ? indexInto(packed, [slice(from, from + step)]) : packed);
    return matmul(x, transpose(unpack(rows(w), rows(scales), biases && rows(biases))));
  };
  const parts: Tensor[] = [];
  for (let from = 0; from < outputs; from += step) parts.push(product(from));
  return parts.length === 1 ? parts[0]! : concatenate(parts, { axis: -1 });
}
