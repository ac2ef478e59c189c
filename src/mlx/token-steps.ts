/** One token through a layer, or half of one, as one operation: on a CPU a step of a small model is mostly its operations. */
import type { Group } from "./distributed";
import * as abi from "./generated/ops";
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

export interface TokenFeedForward {
  /** Of gates and values side by side: (2 M, D), in one matrix or several */
  joint: readonly TokenMatrix[];
  /** (N, M) */
  last: TokenMatrix;
  kind: "silu" | "gelu";
}

export interface TokenAttention {
  /** Of queries, keys and values side by side: ((H + 2 · Hkv) · D, C), in one matrix or several */
  joint: readonly TokenMatrix[];
  /** (N, H · D) */
  last: TokenMatrix;
  heads: number;
  kvHeads: number;
  /** Weights of an RMS norm over each head, (D), ahead of the rotation. */
  norms?: { queries: Tensor; keys: Tensor; eps: number };
  /** How heads are turned by halves; null where they are not. */
  rotation: { dims: number; base: number | null; scale: number; freqs: Tensor | null } | null;
  /** Factor on the scores. */
  scale: number;
  /** Ranks that each have some of the heads, and of a layer's feed-forward block a part: results are summed over them. */
  group: Group | null;
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
  /** Of what attention and the feed-forward block give, ahead of its addition. */
  behind?: { attention: TokenNorm; feed: TokenNorm } | null;
}

declare const of: unique symbol;

/**
 * What stays the same from token to token, in the order in which vendor/mlx/src/description.cpp reads it: numbers, and handles of
 * tensors, which it does not keep alive. To make it takes some 3 µs, and a step needs that of each layer: so it is made once, and
 * again where a tensor is another.
 */
export type Description<Of> = readonly number[] & { readonly [of]?: Of };

const floatBits = new Float32Array(new ArrayBuffer(4));
const intBits = new Int32Array(floatBits.buffer);

function bitsOf(value: number): number {
  floatBits[0] = value;
  return intBits[0]!;
}

function matrixWords({ matrix, packing }: TokenMatrix): number[] {
  const { weight, scales, biases, bias } = matrix;
  const arrays = handlesOf([weight, scales, biases, bias].filter((tensor) => tensor !== undefined));
  const biased = bias ? 1 : 0;
  if (!packing) return [0, 0, 0, biased, ...arrays];
  if ("blockType" in packing) return [packing.blockType, 0, inBlocks, biased, ...arrays];
  return [packing.groupSize, packing.bits, modes.indexOf(packing.mode), biased, ...arrays];
}

const jointWords = (matrices: readonly TokenMatrix[]) => [matrices.length, ...matrices.flatMap(matrixWords)];

export const describeFeedForward = ({ joint, last, kind }: TokenFeedForward): Description<TokenFeedForward> => [
  Number(kind === "gelu"),
  ...jointWords(joint),
  ...matrixWords(last),
];

export type TokenHeads = Pick<TokenAttention, "heads" | "kvHeads" | "norms" | "rotation" | "scale">;

export const describeHeads = ({ heads, kvHeads, norms, rotation, scale }: TokenHeads): Description<TokenHeads> => [
  heads,
  kvHeads,
  rotation?.dims ?? 0,
  norms?.queries.handle ?? 0,
  norms?.keys.handle ?? 0,
  bitsOf(norms?.eps ?? 0),
  bitsOf(rotation?.base ?? Number.NaN),
  bitsOf(rotation?.scale ?? 1),
  rotation?.freqs?.handle ?? 0,
  bitsOf(scale),
];

export const describeAttention = (attention: TokenAttention): Description<TokenAttention> => [
  ...describeHeads(attention),
  attention.group?.id ?? -1,
  ...jointWords(attention.joint),
  ...matrixWords(attention.last),
];

const normWords = ({ weight, eps }: TokenNorm) => [weight.handle, bitsOf(eps)];

export const describeLayer = ({ first, attention, second, feed, behind }: TokenLayer): Description<TokenLayer> => [
  ...normWords(first),
  ...normWords(second),
  ...(behind ? [1, ...normWords(behind.attention), ...normWords(behind.feed)] : [0]),
  ...describeAttention(attention),
  ...describeFeedForward(feed),
];

/** The rows that a token attends to, and where its own go. */
export interface TokenRows {
  /** (B, Hkv, S, D). Nobody else may hold them: the token's row is written in place. */
  keys: Tensor;
  values: Tensor;
}

export interface OneTokenRows extends TokenRows {
  /** How many rows have tokens. */
  used: number;
  /** The token's own row: behind those that are used, or one of them, which it replaces. */
  row: number;
  /** Position of the token. */
  offset: number;
}

/** Rows in order of time: where they go on behind the last one of `keys` and `values`, it is with the first. */
export interface SequenceRows extends TokenRows {
  /** The row that the tokens' own go to, behind those that they see. */
  used: number;
  /** Each sequence's first row, (B). */
  starts: readonly number[];
  /** Positions of the tokens, (B). */
  positions: readonly number[];
}

/** last(gate(g) · v) of x (1, 1, D), where `joint` gives g and v side by side → (1, 1, N). Null where no kernel takes these. */
export function feedToken(x: Tensor, feed: Description<TokenFeedForward>): Tensor | null {
  const [out] = abi.feed_token(x.handle, feed);
  return out === undefined ? null : wrap(out);
}

/**
 * Attention of one token x (1, 1, C) with its projections → (1, 1, N). Its own key and value are written to row `row` of
 * `keys` and `values` when the result is evaluated, and not before. Null where no kernel takes these.
 */
export function attendToken(x: Tensor, attention: Description<TokenAttention>, rows: OneTokenRows): Tensor | null {
  const { keys, values, used, row, offset } = rows;
  const [out] = abi.attend_token(x.handle, keys.handle, values.handle, used, row, offset, attention);
  return out === undefined ? null : wrap(out);
}

/**
 * Attention of one token of each of B sequences, given the joint projections (B, 1, (H + 2 · Hkv) · D) → (B, 1, H · D). Keys and
 * values are written as by `attendToken`. Null where no kernel takes these.
 */
export function attendRows(joint: Tensor, heads: Description<TokenHeads>, rows: SequenceRows): Tensor | null {
  const { keys, values, used, starts, positions } = rows;
  const [out] = abi.attend_rows(joint.handle, keys.handle, values.handle, used, starts, positions, heads);
  return out === undefined ? null : wrap(out);
}

/**
 * One token through a layer: with h = x + delta + attention(first(x + delta)), h and feed(second(h)), each (1, 1, C). Where there are
 * norms behind, it is those of attention's and feed's results.
 * Keys and values are written as by `attendToken`. Null where no kernel takes these.
 */
export function layerToken(
  x: Tensor,
  delta: Tensor | null,
  layer: Description<TokenLayer>,
  { keys, values, used, row, offset }: OneTokenRows,
): [sum: Tensor, delta: Tensor] | null {
  const parts = abi.layer_token(x.handle, delta?.handle ?? null, keys.handle, values.handle, used, row, offset, layer);
  return parts.length === 0 ? null : (wrapAll(parts) as [Tensor, Tensor]);
}

/**
 * The same of one token of each of B sequences, each (B, 1, C). Keys and values are written when h is evaluated. Null where no
 * kernel takes these.
 */
export function layerRows(
  x: Tensor,
  delta: Tensor | null,
  layer: Description<TokenLayer>,
  { keys, values, used, starts, positions }: SequenceRows,
): [sum: Tensor, delta: Tensor] | null {
  const own = delta?.handle ?? null;
  const parts = abi.layer_rows(x.handle, own, keys.handle, values.handle, used, starts, positions, layer);
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

export const describeExperts = ({ gate, up, down, kind }: TokenExperts): Description<TokenExperts> => [
  Number(kind === "gelu"),
  ...[gate, up, down].flatMap(matrixWords),
];

/**
 * One token x (1, 1, C) through the experts that it uses, (…, k), and their results' sum by `weights`, (…, k) → (1, 1, C). Null
 * where no kernel takes these.
 */
export function expertsToken(
  x: Tensor,
  chosen: Tensor,
  weights: Tensor,
  experts: Description<TokenExperts>,
): Tensor | null {
  const [out] = abi.experts_token(x.handle, chosen.handle, weights.handle, experts);
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
