/**
 * Matrices in ggml's blocks, as GGUF files have them: w (…, N, bytes) uint8 holds rows of whole blocks. A type is the
 * number that files have for it.
 */
import { codeOf, type Dtype } from "./dtype";
import * as abi from "./generated/ops";
import { wrap } from "./operand";
import type { Tensor } from "./tensor";

/** x (…, K) × wᵀ → (…, N), summed in float32. @throws MlxError for shapes that do not fit, or a type that there is not */
export function blockMatmul(x: Tensor, w: Tensor, type: number): Tensor {
  return wrap(abi.block_matmul(x.handle, w.handle, type));
}

/** x (…, M, K) × w[indices]ᵀ, w (experts, N, bytes), indices (…) → (…, M, N). @throws MlxError likewise */
export function gatherBlockMm(x: Tensor, w: Tensor, indices: Tensor, type: number): Tensor {
  return wrap(abi.gather_block_mm(x.handle, w.handle, indices.handle, type));
}

/** The numbers: (…, bytes) → (…, K). @throws MlxError likewise */
export function unpackBlocks(w: Tensor, type: number, dtype: Dtype = "float32"): Tensor {
  return wrap(abi.unpack_blocks(w.handle, type, codeOf(dtype)));
}

/** What a type's codes choose from, (count, width) int8. @throws MlxError for a type without such vectors */
export function blockVectors(type: number): Tensor {
  return wrap(abi.block_vectors(type));
}
