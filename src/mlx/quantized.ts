/** Weights in few bits: packed values with a scale (and, for affine, a bias) per group. */
import { codeOf, type Dtype } from "./dtype";
import { MlxError } from "./error";
import * as abi from "./generated/ops";
import { wrap, wrapAll } from "./operand";
import type { GatherIndices } from "./products";
import { scope } from "./scope";
import type { Tensor } from "./tensor";

export type QuantizationMode = "affine" | "mxfp4" | "mxfp8" | "nvfp4";

/** How a weight is quantized; absent numbers take the mode's own (affine: 4 bits in groups of 64). */
export interface Quantization {
  groupSize?: number | null;
  bits?: number | null;
  mode?: QuantizationMode;
}

/** The packings that MLX has, by mode; `standard` is what absent numbers mean. */
export const packings: Readonly<
  Record<
    QuantizationMode,
    { groupSizes: readonly number[]; bits: readonly number[]; standard: { groupSize: number; bits: number } }
  >
> = {
  affine: { groupSizes: [32, 64, 128], bits: [2, 3, 4, 5, 6, 8], standard: { groupSize: 64, bits: 4 } },
  mxfp4: { groupSizes: [32], bits: [4], standard: { groupSize: 32, bits: 4 } },
  mxfp8: { groupSizes: [32], bits: [8], standard: { groupSize: 32, bits: 8 } },
  nvfp4: { groupSizes: [16], bits: [4], standard: { groupSize: 16, bits: 4 } },
};

/** MLX divides by both: zero would end the process. */
function parts({ groupSize = null, bits = null, mode = "affine" }: Quantization) {
  for (const [name, value] of Object.entries({ groupSize, bits })) {
    if (value === null || (Number.isInteger(value) && value > 0)) continue;
    throw new MlxError(`the ${name} of a quantization must be a positive integer, not ${value}`);
  }
  return [groupSize, bits, mode] as const;
}

/** w (…, K) → packed (…, K · bits / 32) uint32, scales (…, K / groupSize) and, for affine, biases of the same shape. */
export function quantize(
  w: Tensor,
  options: Quantization & { globalScale?: Tensor | null } = {},
): [packed: Tensor, scales: Tensor, biases?: Tensor] {
  return scope(() => {
    // MLX's CUDA kernel reads memory in a row: without this a transposed w would give another matrix's scales.
    const rows = abi.contiguous(w.handle, false);
    return wrapAll(abi.quantize(rows, ...parts(options), options.globalScale?.handle ?? null));
  }) as [Tensor, Tensor, Tensor?];
}

/** The inverse of `quantize`, but for what rounding took. */
export function dequantize(
  w: Tensor,
  scales: Tensor,
  biases: Tensor | null = null,
  options: Quantization & { globalScale?: Tensor | null; dtype?: Dtype } = {},
): Tensor {
  const dtype = options.dtype ? codeOf(options.dtype) : null;
  return wrap(
    abi.dequantize(
      w.handle,
      scales.handle,
      biases?.handle ?? null,
      ...parts(options),
      options.globalScale?.handle ?? null,
      dtype,
    ),
  );
}

/** x (…, K) × the quantized w: (N, K) where transposed (the default) → (…, N). */
export function quantizedMatmul(
  x: Tensor,
  w: Tensor,
  scales: Tensor,
  biases: Tensor | null = null,
  { transpose = true, ...options }: Quantization & { transpose?: boolean } = {},
): Tensor {
  return wrap(
    abi.quantized_matmul(x.handle, w.handle, scales.handle, biases?.handle ?? null, transpose, ...parts(options)),
  );
}

/** `gatherMm` on quantized matrices. */
export function gatherQmm(
  x: Tensor,
  w: Tensor,
  scales: Tensor,
  biases: Tensor | null = null,
  options: Quantization & GatherIndices & { transpose?: boolean; globalScale?: Tensor | null } = {},
): Tensor {
  const { lhsIndices, rhsIndices, transpose = true, sortedIndices = false, globalScale } = options;
  return wrap(
    abi.gather_qmm(
      x.handle,
      w.handle,
      scales.handle,
      biases?.handle ?? null,
      lhsIndices?.handle ?? null,
      rhsIndices?.handle ?? null,
      transpose,
      ...parts(options),
      globalScale?.handle ?? null,
      sortedIndices,
    ),
  );
}

interface GlobalScales {
  globalScaleX?: Tensor | null;
  globalScaleW?: Tensor | null;
}

/** x × w with both quantized (nvfp4 or mxfp8): x on the fly; w packed with its scales, or float without. */
export function qqmm(
  x: Tensor,
  w: Tensor,
  scales: Tensor | null = null,
  { globalScaleX, globalScaleW, mode = "nvfp4", ...options }: Quantization & GlobalScales = {},
): Tensor {
  return wrap(
    abi.qqmm(
      x.handle,
      w.handle,
      scales?.handle ?? null,
      ...parts({ ...options, mode }),
      globalScaleX?.handle ?? null,
      globalScaleW?.handle ?? null,
    ),
  );
}

/** `gatherMm` with both sides quantized. */
export function gatherQqmm(
  x: Tensor,
  w: Tensor,
  scales: Tensor | null = null,
  options: Quantization & GatherIndices & GlobalScales = {},
): Tensor {
  const { lhsIndices, rhsIndices, sortedIndices = false, globalScaleX, globalScaleW, mode = "nvfp4" } = options;
  return wrap(
    abi.gather_qqmm(
      x.handle,
      w.handle,
      scales?.handle ?? null,
      lhsIndices?.handle ?? null,
      rhsIndices?.handle ?? null,
      ...parts({ ...options, mode }),
      globalScaleX?.handle ?? null,
      globalScaleW?.handle ?? null,
      sortedIndices,
    ),
  );
}
