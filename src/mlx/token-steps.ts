/** One token through a layer, or half of one, as one operation: on a CPU a step of a small model is mostly its operations. */
import type { Group } from "./distributed";
import * as abi from "./generated/ops";
import type { Handle } from "./native";
import { handlesOf, wrap, wrapAll } from "./operand";
import type { QuantizationMode } from "./quantized";
import type { Tensor } from "./tensor";

/** A layer's matrix (N, K) as it is stored, and its bias (N). */
export interface LayerMatrix {
  weight: Tensor;
  scales?: Tensor;
  biases?: Tensor;
  bias?: Tensor;
}

/** How the matrix is packed, or the type of its blocks; null where it is plain. */
export type MatrixPacking =
  | { readonly groupSize: number; readonly bits: number; readonly mode: QuantizationMode }
  | { readonly blockType: number }
  | null;

export interface TokenMatrix {
  matrix: LayerMatrix;
  packing: MatrixPacking;
}

/** As the library numbers them; behind them it has blocks. */
const modes: readonly QuantizationMode[] = ["affine", "mxfp4", "mxfp8", "nvfp4"];
const inBlocks = modes.length;

function described({ matrix, packing }: TokenMatrix): [arrays: Handle[], how: number[]] {
  const { weight, scales, biases, bias } = matrix;
  const arrays = [weight, scales, biases, bias].filter((tensor) => tensor !== undefined);
  const biased = bias ? 1 : 0;
  if (!packing) return [handlesOf(arrays), [0, 0, 0, biased]];
  if ("blockType" in packing) return [handlesOf(arrays), [packing.blockType, 0, inBlocks, biased]];
  return [handlesOf(arrays), [packing.groupSize, packing.bits, modes.indexOf(packing.mode), biased]];
}

/** Several, one after the other. */
function allDescribed(matrices: readonly TokenMatrix[]): [arrays: Handle[], how: number[]] {
  const each = matrices.map(described);
  return [each.flatMap(([arrays]) => arrays), each.flatMap(([, how]) => how)];
}

export interface TokenFeedForward {
  /** Of gates and values side by side: (2 M, D), in one matrix or several */
  joint: readonly TokenMatrix[];
  /** (N, M) */
  last: TokenMatrix;
  kind: "silu" | "gelu";
}

/** last(gate(g) · v) of x (1, 1, D), where `joint` gives g and v side by side → (1, 1, N). Null where no kernel takes these. */
export function feedToken(x: Tensor, { joint, last, kind }: TokenFeedForward): Tensor | null {
  const [out] = abi.feed_token(kind === "gelu", x.handle, ...allDescribed(joint), ...described(last));
  return out === undefined ? null : wrap(out);
}

export interface TokenAttention {
  /** Of queries, keys and values side by side: ((H + 2 · Hkv) · D, C), in one matrix or several */
  joint: readonly TokenMatrix[];
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
  /** Ranks that each have some of the heads, and of a layer's feed-forward block a part: results are summed over them. */
  group: Group | null;
}

function headArguments({ norms, rotation, scale }: Pick<TokenAttention, "norms" | "rotation" | "scale">) {
  return [
    norms?.queries.handle ?? null,
    norms?.keys.handle ?? null,
    norms?.eps ?? 0,
    rotation?.base ?? null,
    rotation?.scale ?? 1,
    rotation?.freqs?.handle ?? null,
    scale,
  ] as const;
}

function attentionArguments(attention: TokenAttention) {
  const { joint, last, keys, values, used, heads, kvHeads, rotation, offset, group } = attention;
  return [
    ...allDescribed(joint),
    ...described(last),
    keys.handle,
    values.handle,
    [used, heads, kvHeads, rotation?.dims ?? 0, offset],
    ...headArguments(attention),
    group?.id ?? null,
  ] as const;
}

/**
 * Attention of one token x (1, 1, C) with its projections → (1, 1, N). Its own key and value are written to row `used` of
 * `keys` and `values` when the result is evaluated, and not before. Null where no kernel takes these.
 */
export function attendToken(x: Tensor, attention: TokenAttention): Tensor | null {
  const [out] = abi.attend_token(x.handle, ...attentionArguments(attention));
  return out === undefined ? null : wrap(out);
}

export interface RowsAttention extends Omit<TokenAttention, "joint" | "last" | "offset" | "group"> {
  /** Each sequence's first row of `keys` and `values`, (B). Its position is the number of rows from there on. */
  starts: readonly number[];
}

/**
 * Attention of one token of each of B sequences, given the joint projections (B, 1, (H + 2 · Hkv) · D) and keys and values
 * (B, Hkv, S, D) → (B, 1, H · D). Keys and values are written as by `attendToken`. Null where no kernel takes these.
 */
export function attendRows(joint: Tensor, attention: RowsAttention): Tensor | null {
  const { keys, values, used, heads, kvHeads, rotation, starts } = attention;
  const [out] = abi.attend_rows(
    joint.handle,
    keys.handle,
    values.handle,
    [used, heads, kvHeads, rotation?.dims ?? 0, 0],
    starts,
    ...headArguments(attention),
  );
  return out === undefined ? null : wrap(out);
}

/** An RMS norm: weight (C). */
export interface TokenNorm {
  weight: Tensor;
  eps: number;
}

export interface TokenLayer {
  first: TokenNorm;
  attention: TokenAttention;
  second: TokenNorm;
  feed: TokenFeedForward;
}

function layerArguments({ first, attention, second, feed }: TokenLayer) {
  return [
    first.weight.handle,
    first.eps,
    second.weight.handle,
    second.eps,
    ...attentionArguments(attention),
    feed.kind === "gelu",
    ...allDescribed(feed.joint),
    ...described(feed.last),
  ] as const;
}

/**
 * One token through a layer: with h = x + delta + attention(first(x + delta)), h and feed(second(h)), each (1, 1, C).
 * Keys and values are written as by `attendToken`. Null where no kernel takes these.
 */
export function layerToken(x: Tensor, delta: Tensor | null, layer: TokenLayer): [sum: Tensor, delta: Tensor] | null {
  const parts = abi.layer_token(x.handle, delta?.handle ?? null, ...layerArguments(layer));
  return parts.length === 0 ? null : (wrapAll(parts) as [Tensor, Tensor]);
}

/**
 * The same of one token of each of B sequences, each (B, 1, C), with keys and values (B, Hkv, S, D) and where each sequence's
 * begin, as in `RowsAttention`. Keys and values are written when h is evaluated. Null where no kernel takes these.
 */
export function layerRows(
  x: Tensor,
  delta: Tensor | null,
  layer: TokenLayer,
  starts: readonly number[],
): [sum: Tensor, delta: Tensor] | null {
  const parts = abi.layer_rows(x.handle, delta?.handle ?? null, starts, ...layerArguments(layer));
  return parts.length === 0 ? null : (wrapAll(parts) as [Tensor, Tensor]);
}

export interface TokenExperts {
  /** (experts, M, C) */
  gate: TokenMatrix;
  up: TokenMatrix;
  /** (experts, C, M) */
  down: TokenMatrix;
  kind: "silu" | "gelu";
}

/**
 * One token x (1, 1, C) through the experts that it uses, (…, k), and their results' sum by `weights`, (…, k) → (1, 1, C). Null
 * where no kernel takes these.
 */
export function expertsToken(x: Tensor, chosen: Tensor, weights: Tensor, experts: TokenExperts): Tensor | null {
  const { gate, up, down, kind } = experts;
  const matrices = [...described(gate), ...described(up), ...described(down)] as const;
  const [out] = abi.experts_token(kind === "gelu", x.handle, chosen.handle, weights.handle, ...matrices);
  return out === undefined ? null : wrap(out);
}

/**
 * logits (…, E) → the experts of the k highest probabilities of a softmax, lowest first, and these probabilities, with
 * `normalize` made to sum to one: both (…, k). Null where no kernel takes these.
 */
export function routeTokens(
  logits: Tensor,
  k: number,
  { normalize }: { normalize: boolean },
): [experts: Tensor, weights: Tensor] | null {
  const parts = abi.route_tokens(logits.handle, k, normalize);
  return parts.length === 0 ? null : (wrapAll(parts) as [Tensor, Tensor]);
}
