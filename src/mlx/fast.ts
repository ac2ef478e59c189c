/** MLX's fused operations: one kernel each on the GPU. */
import { rotateHalves } from "./cpu-rope";
import { defaultDevice } from "./devices";
import { astype } from "./elementwise";
import * as abi from "./generated/ops";
import { native } from "./library";
import { wrap, wrapAll } from "./operand";
import { reshape, split, swapaxes } from "./shaping";
import { Tensor } from "./tensor";

/** x / √(mean(x², last axis) + eps) · weight, accumulated in float32. Zhang & Sennrich 2019, arXiv:1910.07467. */
export function rmsNorm(x: Tensor, weight: Tensor | null, eps: number): Tensor {
  return wrap(abi.rms_norm(x.handle, weight?.handle ?? null, eps));
}

/** [x + delta, its `rmsNorm`]: one kernel for both on CUDA. x and delta (…, D), weight (D). */
export function addRmsNorm(x: Tensor, delta: Tensor, weight: Tensor, eps: number): [sum: Tensor, normed: Tensor] {
  return wrapAll(abi.add_rms_norm(x.handle, delta.handle, weight.handle, eps)) as [Tensor, Tensor];
}

/** (x − mean) / √(var + eps) · weight + bias over the last axis, accumulated in float32. */
export function layerNorm(x: Tensor, weight: Tensor | null, bias: Tensor | null, eps: number): Tensor {
  return wrap(abi.fast_layer_norm(x.handle, weight?.handle ?? null, bias?.handle ?? null, eps));
}

/**
 * −log softmax(logits)[target] along the last axis, in float32 and rounded to the logits' dtype: logits (…, V), targets
 * (…) → (…). Null where no kernel takes it.
 */
export function crossEntropy(logits: Tensor, targets: Tensor): Tensor | null {
  if (defaultDevice() === "gpu")
    return astype(wrap(abi.fast_cross_entropy(logits.handle, targets.handle)), logits.dtype);
  const [losses] = abi.cross_entropy(logits.handle, targets.handle);
  return losses === undefined ? null : wrap(losses);
}

/**
 * base + scale · x a b, the product in float32 and rounded to x's dtype: base (…, N), x (…, K), a (K, R), b (R, N). On
 * CUDA a few kernels, which read x and the gradient as they are. Hu et al. 2021, arXiv:2106.09685.
 */
export function lowRank(base: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: number): Tensor {
  if (hasCuda) {
    const [sum] = abi.low_rank(base.handle, x.handle, a.handle, b.handle, scale);
    if (sum !== undefined) return wrap(sum);
  }
  return base.add(x.matmul(a).matmul(b).multiply(scale).astype(x.dtype));
}

export interface Rope {
  /** Whether pairs are neighbours (x₀, x₁) instead of halves (x₀, x_{d/2}). */
  traditional?: boolean;
  /** Angle base; null where `freqs` are given. */
  base?: number | null;
  /** Factor on positions. */
  scale?: number;
  /** Position of the first row: a number, a tensor with one per batch row, or the position of every row, (B, T). */
  offset?: number | Tensor;
  /** Inverse frequencies, (dims / 2). */
  freqs?: Tensor | null;
}

/** Rotary embedding of x (…, T, D) on its first `dims` features. Su et al. 2021, arXiv:2104.09864. */
export function rope(x: Tensor, dims: number, options: Rope = {}): Tensor {
  const { traditional = false, base = 10_000, scale = 1, offset = 0, freqs = null } = options;
  const angles = freqs ? null : base;
  if (offset instanceof Tensor && offset.ndim === 2) {
    if (!traditional && defaultDevice() === "cpu") return rotateHalves(x, dims, { base: angles, scale, offset, freqs });
    // Each row as a batch of its own.
    const [batch, heads, length, features] = x.shape as [number, number, number, number];
    const apart = reshape(swapaxes(x, 1, 2), [batch * length, heads, 1, features]);
    const turned = rope(apart, dims, { ...options, offset: reshape(offset, [batch * length]) });
    return swapaxes(reshape(turned, [batch, length, heads, features]), 1, 2);
  }
  if (typeof offset === "number" && !traditional && x.ndim === 4 && defaultDevice() === "cpu") {
    const [turned] = abi.rotate(x.handle, dims, angles, scale, offset, freqs?.handle ?? null);
    return turned === undefined ? rotateHalves(x, dims, { base: angles, scale, offset, freqs }) : wrap(turned);
  }
  return wrap(
    offset instanceof Tensor
      ? abi.fast_rope_at(x.handle, dims, traditional, angles, scale, offset.handle, freqs?.handle ?? null)
      : abi.fast_rope(x.handle, dims, traditional, angles, scale, offset, freqs?.handle ?? null),
  );
}

/** What `rotateHeads` does to queries and keys. */
export interface HeadRotation {
  heads: number;
  kvHeads: number;
  /** How many features of a head turn. */
  dims: number;
  /** Weights of an RMS norm over each head, (D), ahead of the rotation. */
  norms?: { queries: Tensor; keys: Tensor; eps: number };
  base: number | null;
  scale: number;
  /** Position of the one row. */
  offset: number;
  freqs: Tensor | null;
}

const hasCuda = native.mlxlm_cuda_available() === 1;

type QueriesKeysValues = [q: Tensor, k: Tensor, v: Tensor];

/**
 * Queries (B, H, 1, D), keys and values (B, Hkv, 1, D) of one token's joint projection (B, 1, (H + 2 · Hkv) · D), queries
 * and keys normalized and rotated by halves: all in one kernel where there is one.
 */
export function rotateHeads(joint: Tensor, options: HeadRotation): QueriesKeysValues {
  if (!hasCuda && defaultDevice() === "gpu") return rotateParts(joint, options);
  const { heads, kvHeads, dims, norms, base, scale, offset, freqs } = options;
  const parts = abi.rotate_heads(
    joint.handle,
    heads,
    kvHeads,
    norms?.queries.handle ?? null,
    norms?.keys.handle ?? null,
    norms?.eps ?? 0,
    dims,
    base,
    scale,
    offset,
    freqs?.handle ?? null,
  );
  return parts.length === 0 ? rotateParts(joint, options) : (wrapAll(parts) as QueriesKeysValues);
}

/** The same by operations: on Metal, for float32 on CUDA, while a gradient is traced. */
function rotateParts(joint: Tensor, { heads, kvHeads, dims, norms, ...angles }: HeadRotation): QueriesKeysValues {
  const count = heads + 2 * kvHeads;
  const all = reshape(joint, [joint.dim(0), count, 1, joint.dim(-1) / count]);
  if (norms) {
    const [q, k, v] = split(all, [heads, heads + kvHeads], { axis: 1 }) as QueriesKeysValues;
    const turned = (x: Tensor, weight: Tensor) => rope(rmsNorm(x, weight, norms.eps), dims, angles);
    return [turned(q, norms.queries), turned(k, norms.keys), v];
  }
  const [turning, v] = split(all, [heads + kvHeads], { axis: 1 }) as [Tensor, Tensor];
  const [q, k] = split(rope(turning, dims, angles), [heads], { axis: 1 }) as [Tensor, Tensor];
  return [q, k, v];
}

export interface Attention {
  /** Factor on the scores, usually 1/√D. */
  scale: number;
  /** "causal", a bool mask (true: attend), or an additive one; broadcastable to (B, H, T, S). */
  mask?: "causal" | Tensor | null;
  /** Extra scores per head that take part in the softmax and attend to nothing, (H). */
  sinks?: Tensor | null;
}

/** softmax(q kᵀ · scale + mask) v: q (B, H, T, D), k and v (B, Hkv, S, D) with H a multiple of Hkv → (B, H, T, D). */
export function scaledDotProductAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  { scale, mask = null, sinks = null }: Attention,
): Tensor {
  const mode = mask === "causal" ? "causal" : "";
  const values = mask instanceof Tensor ? mask.handle : null;
  return wrap(
    abi.scaled_dot_product_attention(q.handle, k.handle, v.handle, scale, mode, values, sinks?.handle ?? null),
  );
}

/**
 * Gated delta rule, the recurrence of Gated DeltaNet (Yang et al. 2024, arXiv:2412.06464).
 * Returns the outputs and the last state.
 */
export function gatedDeltaUpdate(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  gates: Tensor,
  beta: Tensor,
  { state, mask }: { state?: Tensor | null; mask?: Tensor | null } = {},
): [Tensor, Tensor] {
  return wrapAll(
    abi.fast_gated_delta_update(
      q.handle,
      k.handle,
      v.handle,
      gates.handle,
      beta.handle,
      state?.handle ?? null,
      mask?.handle ?? null,
    ),
  ) as [Tensor, Tensor];
}

export { gated, geluApprox, silu } from "./gates";
export { cudaKernel, type Kernel, type KernelCall, type KernelSource, metalKernel } from "./kernels";
export { deltaLayer, recurrence, selectiveScan, shortConvolution, stateSpace } from "./recurrent";
export {
  attendRows,
  attendToken,
  type Description,
  describeAttention,
  describeExperts,
  describeFeedForward,
  describeHeads,
  describeLayer,
  expertsToken,
  feedToken,
  layerRows,
  layerToken,
  type OneTokenRows,
  routeTokens,
  type SequenceRows,
  type TokenAttention,
  type TokenExperts,
  type TokenFeedForward,
  type TokenLayer,
  type TokenMatrix,
  type TokenNorm,
} from "./token-steps";
