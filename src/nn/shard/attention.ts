/** Attention divided by heads. Shoeybi et al. 2019, arXiv:1909.08053, section 3. */
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import { Module } from "../module";
import { inputsOf, isSliceable, keepOutputs, outputsOf } from "./slices";
import { type HeadShare, type Range, type Split, shareHeads } from "./split";
import { SumOfParts } from "./sum-of-parts";

export const scaled = ([start, end]: Range, width: number): Range => [start * width, end * width];

/** An attention with projections: keys or values may be another's. */
export interface Headed extends Module {
  readonly heads: number;
  readonly kvHeads: number;
}

export interface DivideOptions {
  /** What its projections are called, where it is not `q_proj`, `k_proj`, `v_proj` and `o_proj`. */
  names?: readonly [queries: string, keys: string, values: string, output: string];
  /** Names of layers that have outputs for each head of queries, beside `q_proj`. */
  layers?: readonly string[];
  /** Names of tensors (H, …). */
  tensors?: readonly string[];
  /** For other parts of the attention. Norms over a head's features stay as they are. */
  others?: { names: readonly string[]; divide: (share: HeadShare) => void };
}

const usualNames = ["q_proj", "k_proj", "v_proj", "o_proj"] as const;

/** Whether a part is a norm over the features of one head: it serves all heads. */
function isHeadNorm(part: unknown, headDim: number): boolean {
  if (!(part instanceof Module)) return false;
  const parameters = part.namedParameters();
  return parameters.length > 0 && parameters.every(([, { shape }]) => shape.length === 1 && shape[0] === headDim);
}

/**
 * Leaves this rank's heads of an attention, whose last projection sums over ranks. Where it has layers or tensors that
 * nothing is said about, it stays whole on every rank: the same result, only not less work.
 */
export function divideHeads(module: Headed, split: Split, options: DivideOptions = {}): void {
  const { names = usualNames, layers = [], tensors = [], others } = options;
  const [queries, keys, values, output] = names;
  const parts = module as unknown as Record<string, unknown>;
  const present = (names: readonly string[]) => names.map((name) => parts[name]).filter((part) => part !== undefined);
  const [byQuery, byKey] = [present([queries, ...layers]), present([keys, values])];
  const { heads, kvHeads } = module;
  const last = parts[output];
  if (!byQuery.every(isSliceable) || !byKey.every(isSliceable) || !isSliceable(last)) return;
  const headDim = byKey.length > 0 ? outputsOf(byKey[0]!) / kvHeads : inputsOf(last) / heads;
  const known = new Set<string>([...names, ...layers, ...tensors, ...(others?.names ?? [])]);
  const isKnown = ([name, part]: [string, unknown]) =>
    name.startsWith("_") || known.has(name) || isHeadNorm(part, headDim) || !hasParameters(part);
  if (!Object.entries(module).every(isKnown)) return;

  const share = shareHeads(heads, kvHeads, split);
  for (const layer of byQuery) keepOutputs(layer, [scaled(share.queries, outputsOf(layer) / heads)]);
  for (const layer of byKey) keepOutputs(layer, [scaled(share.keys, outputsOf(layer) / kvHeads)]);
  for (const name of tensors) {
    const kept = mx.scope(() => mx.contiguous(mx.sliceAxis(parts[name] as Tensor, 0, ...share.queries)));
    module.update([[name, kept]]);
  }
  others?.divide(share);
  parts[output] = new SumOfParts(last as never, scaled(share.queries, inputsOf(last) / heads), split, share);
  const [ownHeads, ownKeys] = [share.queries, share.keys].map(([start, end]) => end - start);
  Object.assign(module, { heads: ownHeads, kvHeads: ownKeys });
}

/** Whether a field holds tensors. */
export const hasParameters = (part: unknown) =>
  part instanceof mx.Tensor || (part instanceof Module && part.namedParameters().length > 0) || Array.isArray(part);
