/** One token through half a layer as one operation: on a CPU a step of a small model is mostly its operations. */
import * as abi from "./generated/ops";
import type { Handle } from "./native";
import { handlesOf, wrap } from "./operand";
import type { QuantizationMode } from "./quantized";
import type { Tensor } from "./tensor";

/** A layer's matrix (N, K) as it is stored, and its bias (N). */
export interface LayerMatrix {
  weight: Tensor;
  scales?: Tensor;
  biases?: Tensor;
  bias?: Tensor;
}

/** How the matrix is packed; null where it is plain. */
export type MatrixPacking = {
  readonly groupSize: number;
  readonly bits: number;
  readonly mode: QuantizationMode;
} | null;

export interface TokenMatrix {
  matrix: LayerMatrix;
  packing: MatrixPacking;
}

/** As the library numbers them. */
const modes: readonly QuantizationMode[] = ["affine", "mxfp4", "mxfp8", "nvfp4"];

function described({ matrix, packing }: TokenMatrix): [arrays: Handle[], how: number[]] {
  const { weight, scales, biases, bias } = matrix;
  const arrays = [weight, scales, biases, bias].filter((tensor) => tensor !== undefined);
  const biased = bias ? 1 : 0;
  if (!packing) return [handlesOf(arrays), [0, 0, 0, biased]];
  return [handlesOf(arrays), [packing.groupSize, packing.bits, modes.indexOf(packing.mode), biased]];
}

/**
 * last(gate(g) · v) of x (1, 1, D), where `joint` (2 M, D) gives g and v side by side and `last` is (N, M) → (1, 1, N).
 * Null where no kernel takes these.
 */
export function feedToken(kind: "silu" | "gelu", x: Tensor, joint: TokenMatrix, last: TokenMatrix): Tensor | null {
  const [out] = abi.feed_token(kind === "gelu", x.handle, ...described(joint), ...described(last));
  return out === undefined ? null : wrap(out);
}

export interface TokenAttention {
  /** Of queries, keys and values side by side: ((H + 2 · Hkv) · D, C) */
  joint: TokenMatrix;
  /** (N, H · D) */
  last: TokenMatrix;
  /** (1, Hkv, S, D). Nobody else may hold them: row `used` is written in place. */
  keys: Tensor;
  values: Tensor;
  /** How many rows are attended to beside the token's own. */
  used: number;
  heads: number;
  kvHeads: number;
  /** Weights of an RMS norm over each head, (D), ahead of the rotation. */
  norms?: { queries: Tensor; keys: Tensor; eps: number };
  /** How heads are turned by halves; null where they are not. */
  rotation: { dims: number; base: number | null; scale: number; freqs: Tensor | null } | null;
  /** Position of the token. */
  offset: number;
  /** Factor on the scores. */
  scale: number;
}

/**
 * Attention of one token x (1, 1, C) with its projections → (1, 1, N). Its own key and value are written to row `used` of
 * `keys` and `values` when the result is evaluated, and not before. Null where no kernel takes these.
 */
export function attendToken(x: Tensor, attention: TokenAttention): Tensor | null {
  const { joint, last, keys, values, used, heads, kvHeads, norms, rotation, offset, scale } = attention;
  const [out] = abi.attend_token(
    x.handle,
    ...described(joint),
    ...described(last),
    keys.handle,
    values.handle,
    used,
    heads,
    kvHeads,
    norms?.queries.handle ?? null,
    norms?.keys.handle ?? null,
    norms?.eps ?? 0,
    rotation?.dims ?? 0,
    rotation?.base ?? null,
    rotation?.scale ?? 1,
    offset,
    rotation?.freqs?.handle ?? null,
    scale,
  );
  return out === undefined ? null : wrap(out);
}
