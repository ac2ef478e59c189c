/** Latent attention divided by heads. What all heads share, the latent vectors, is computed by every rank. */
import * as mx from "../../mlx";
import type { Module } from "../module";
import { scaled } from "./attention";
import { inputsOf, isSliceable, keepOutputs, outputsOf } from "./slices";
import { type Split, shareHeads } from "./split";
import { SumOfParts } from "./sum-of-parts";

interface Latent extends Module {
  readonly sizes: { readonly heads: number };
  q_proj?: Module;
  q_b_proj?: Module;
  embed_q: Module;
  unembed_out: Module;
}

/** @param byHead layers that have outputs for each head, beside the queries'. @returns how many heads there are now; null where the attention stays whole on every rank */
export function divideLatentHeads(
  module: Latent,
  split: Split,
  output: string,
  byHead: readonly string[],
): number | null {
  const { heads } = module.sizes;
  const queries: unknown = module.q_proj ?? module.q_b_proj;
  const layers = module as unknown as Record<string, unknown>;
  const last = layers[output];
  const more = byHead.map((name) => layers[name]).filter((layer) => layer !== undefined);
  if (!isSliceable(queries) || !isSliceable(last) || !more.every(isSliceable)) return null;
  const share = shareHeads(heads, heads, split);
  for (const layer of [queries, ...more]) keepOutputs(layer, [scaled(share.queries, outputsOf(layer) / heads)]);
  for (const layer of [module.embed_q, module.unembed_out]) {
    layer.update(
      layer.namedParameters().map(([name, x]) => {
        return [name, mx.scope(() => mx.contiguous(mx.sliceAxis(x, 0, ...share.queries)))] as const;
      }),
    );
  }
  layers[output] = new SumOfParts(last as never, scaled(share.queries, inputsOf(last) / heads), split, share);
  return share.queries[1] - share.queries[0];
}
