/** Attention divided by heads, whose layers have other names, or whose queries, keys and values come from one layer. */
import type { Module } from "../module";
import { scaled } from "./attention";
import { inputsOf, isSliceable, keepOutputs, outputsOf } from "./slices";
import { type HeadShare, type Range, type Split, shareHeads } from "./split";
import { SumOfParts } from "./sum-of-parts";

export interface NamedHeads {
  inputs: readonly [queries: string, ...keysAndValues: string[]] | string;
  output: string;
  /** The order of the outputs of one layer: all queries first, or each head of keys with its queries ahead of it. */
  order?: "by kind" | "by group";
}

/** Outputs of one layer for queries, keys and values that a rank keeps. */
export function jointPieces(
  { queries, keys }: HeadShare,
  {
    heads,
    kvHeads,
    width,
    order = "by kind",
  }: { heads: number; kvHeads: number; width: number; order?: NamedHeads["order"] },
): Range[] {
  if (order === "by kind") {
    const behind = (first: number) => scaled([first + keys[0], first + keys[1]], width);
    return [scaled(queries, width), behind(heads), behind(heads + kvHeads)];
  }
  const group = heads / kvHeads;
  return Array.from({ length: keys[1] - keys[0] }, (_, i) => keys[0] + i).flatMap((key) => {
    const first = key * (group + 2);
    const [start, end] = [Math.max(queries[0], key * group), Math.min(queries[1], (key + 1) * group)];
    const own: Range = [first + start - key * group, first + end - key * group];
    return [scaled(own, width), scaled([first + group, first + group + 2], width)];
  });
}

/** As `divideHeads`; heads of keys are as many as those of queries where it does not say how many. @returns how many heads there are now; null where the attention stays whole */
export function divideNamedHeads(
  module: Module & { readonly heads: number; readonly kvHeads?: number },
  split: Split,
  { inputs, output, order }: NamedHeads,
): { heads: number; kvHeads: number } | null {
  const layers = module as unknown as Record<string, unknown>;
  const { heads, kvHeads = heads } = module;
  const last = layers[output];
  const firsts = [inputs].flat().map((name) => layers[name]);
  if (!isSliceable(last) || !firsts.every(isSliceable)) return null;
  const share = shareHeads(heads, kvHeads, split);
  const [first, ...others] = firsts;
  if (typeof inputs === "string") {
    const width = outputsOf(first!) / (heads + 2 * kvHeads);
    keepOutputs(first!, jointPieces(share, { heads, kvHeads, width, order }));
  } else {
    keepOutputs(first!, [scaled(share.queries, outputsOf(first!) / heads)]);
    for (const layer of others) keepOutputs(layer, [scaled(share.keys, outputsOf(layer) / kvHeads)]);
  }
  layers[output] = new SumOfParts(last as never, scaled(share.queries, inputsOf(last) / heads), split, share);
  return { heads: share.queries[1] - share.queries[0], kvHeads: share.keys[1] - share.keys[0] };
}
