/** Matrix products, convolutions, einsum. */
import * as abi from "./generated/ops";
import { handlesOf, wrap } from "./operand";
import type { Tensor } from "./tensor";

/** (…, M, K) × (…, K, N) → (…, M, N). */
export function matmul(a: Tensor, b: Tensor): Tensor {
  return wrap(abi.matmul(a.handle, b.handle));
}

/** beta · c + alpha · (a × b). */
export function addmm(c: Tensor, a: Tensor, b: Tensor, { alpha = 1, beta = 1 } = {}): Tensor {
  return wrap(abi.addmm(c.handle, a.handle, b.handle, alpha, beta));
}

export function outer(a: Tensor, b: Tensor): Tensor {
  return wrap(abi.outer(a.handle, b.handle));
}

export function inner(a: Tensor, b: Tensor): Tensor {
  return wrap(abi.inner(a.handle, b.handle));
}

export function kron(a: Tensor, b: Tensor): Tensor {
  return wrap(abi.kron(a.handle, b.handle));
}

export function vecdot(a: Tensor, b: Tensor, { axis = -1 } = {}): Tensor {
  return wrap(abi.vecdot(a.handle, b.handle, axis));
}

/** Contracts the last `axes` axes of `a` with the first of `b`, or the listed pairs. */
export function tensordot(a: Tensor, b: Tensor, axes: number | [readonly number[], readonly number[]] = 2): Tensor {
  const [axesA, axesB] =
    typeof axes === "number"
      ? [Array.from({ length: axes }, (_, i) => a.ndim - axes + i), Array.from({ length: axes }, (_, i) => i)]
      : axes;
  return wrap(abi.tensordot(a.handle, b.handle, axesA, axesB));
}

export function einsum(subscripts: string, ...operands: Tensor[]): Tensor {
  return wrap(abi.einsum(subscripts, handlesOf(operands)));
}

/** Walsh–Hadamard transform of the last axis; `scale` defaults to 1/√n. */
export function hadamardTransform(x: Tensor, { scale }: { scale?: number } = {}): Tensor {
  return wrap(abi.hadamard_transform(x.handle, scale ?? null));
}

/** A product whose blocks are masked: each mask says which blocks of the output or of an operand count. */
export function blockMaskedMm(
  a: Tensor,
  b: Tensor,
  {
    blockSize = 64,
    maskOut,
    maskLhs,
    maskRhs,
  }: { blockSize?: number; maskOut?: Tensor; maskLhs?: Tensor; maskRhs?: Tensor } = {},
): Tensor {
  return wrap(
    abi.block_masked_mm(
      a.handle,
      b.handle,
      blockSize,
      maskOut?.handle ?? null,
      maskLhs?.handle ?? null,
      maskRhs?.handle ?? null,
    ),
  );
}

/** a (M, K) × b (K, N), the inner dimension cut at `segments` (S, 2) → (S, M, N). */
export function segmentedMm(a: Tensor, b: Tensor, segments: Tensor): Tensor {
  return wrap(abi.segmented_mm(a.handle, b.handle, segments.handle));
}

export interface GatherIndices {
  lhsIndices?: Tensor | null;
  rhsIndices?: Tensor | null;
  /** Whether the indices are known to be sorted: a faster kernel on the GPU. */
  sortedIndices?: boolean;
}

/** Products of matrices chosen by index from the batch axes of `a` and `b`. */
export function gatherMm(
  a: Tensor,
  b: Tensor,
  { lhsIndices, rhsIndices, sortedIndices = false }: GatherIndices = {},
): Tensor {
  return wrap(abi.gather_mm(a.handle, b.handle, lhsIndices?.handle ?? null, rhsIndices?.handle ?? null, sortedIndices));
}

type PerAxis = number | readonly number[];

const spread = (value: PerAxis, axes: number): readonly number[] =>
  typeof value === "number" ? new Array<number>(axes).fill(value) : value;

export interface Convolution {
  stride?: PerAxis;
  padding?: PerAxis;
  dilation?: PerAxis;
  groups?: number;
}

export interface TransposedConvolution extends Convolution {
  outputPadding?: PerAxis;
}

/** x (N, L, C), weight (O, K, C / groups) → (N, L', O). */
export function conv1d(
  x: Tensor,
  weight: Tensor,
  {
    stride = 1,
    padding = 0,
    dilation = 1,
    groups = 1,
  }: { stride?: number; padding?: number; dilation?: number; groups?: number } = {},
): Tensor {
  return wrap(abi.conv1d(x.handle, weight.handle, stride, padding, dilation, groups));
}

/** x (N, H, W, C), weight (O, KH, KW, C / groups) → (N, H', W', O). */
export function conv2d(
  x: Tensor,
  weight: Tensor,
  { stride = 1, padding = 0, dilation = 1, groups = 1 }: Convolution = {},
): Tensor {
  return wrap(abi.conv2d(x.handle, weight.handle, spread(stride, 2), spread(padding, 2), spread(dilation, 2), groups));
}

/** x (N, D, H, W, C), weight (O, KD, KH, KW, C / groups) → (N, D', H', W', O). */
export function conv3d(
  x: Tensor,
  weight: Tensor,
  { stride = 1, padding = 0, dilation = 1, groups = 1 }: Convolution = {},
): Tensor {
  return wrap(abi.conv3d(x.handle, weight.handle, spread(stride, 3), spread(padding, 3), spread(dilation, 3), groups));
}

export function convTranspose1d(
  x: Tensor,
  weight: Tensor,
  {
    stride = 1,
    padding = 0,
    dilation = 1,
    outputPadding = 0,
    groups = 1,
  }: {
    stride?: number;
    padding?: number;
    dilation?: number;
    outputPadding?: number;
    groups?: number;
  } = {},
): Tensor {
  return wrap(abi.conv_transpose1d(x.handle, weight.handle, stride, padding, dilation, outputPadding, groups));
}

export function convTranspose2d(x: Tensor, weight: Tensor, options: TransposedConvolution = {}): Tensor {
  const { stride = 1, padding = 0, dilation = 1, outputPadding = 0, groups = 1 } = options;
  return wrap(
    abi.conv_transpose2d(
      x.handle,
      weight.handle,
      spread(stride, 2),
      spread(padding, 2),
      spread(dilation, 2),
      spread(outputPadding, 2),
      groups,
    ),
  );
}

export function convTranspose3d(x: Tensor, weight: Tensor, options: TransposedConvolution = {}): Tensor {
  const { stride = 1, padding = 0, dilation = 1, outputPadding = 0, groups = 1 } = options;
  return wrap(
    abi.conv_transpose3d(
      x.handle,
      weight.handle,
      spread(stride, 3),
      spread(padding, 3),
      spread(dilation, 3),
      spread(outputPadding, 3),
      groups,
    ),
  );
}

/** Convolution over any number of axes, with padding per side and dilation of both kernel and input. */
export function convGeneral(
  x: Tensor,
  weight: Tensor,
  options: {
    stride?: PerAxis;
    /** One number for all, one per axis, or [low, high] lists. */
    padding?: PerAxis | [readonly number[], readonly number[]];
    kernelDilation?: PerAxis;
    inputDilation?: PerAxis;
    groups?: number;
    flip?: boolean;
  } = {},
): Tensor {
  const axes = x.ndim - 2;
  const { stride = 1, padding = 0, kernelDilation = 1, inputDilation = 1, groups = 1, flip = false } = options;
  const sided = Array.isArray(padding) && Array.isArray(padding[0]);
  const [low, high] = sided
    ? (padding as [number[], number[]])
    : [spread(padding as PerAxis, axes), spread(padding as PerAxis, axes)];
  return wrap(
    abi.conv_general(
      x.handle,
      weight.handle,
      spread(stride, axes),
      low,
      high,
      spread(kernelDilation, axes),
      spread(inputDilation, axes),
      groups,
      flip,
    ),
  );
}
