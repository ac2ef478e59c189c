/** Latent attention divided by heads. What all heads share, the latent vectors, is computed by every rank. */
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { Module } from "../module";
import { hasParameters, scaled } from "./attention";
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

export interface LatentOptions {
  /** The last layer's name. */
  output?: string;
  /** Names of layers that have outputs for each head, beside the queries'. */
  byHead?: readonly string[];
  /** Names of tensors (H). */
  tensors?: readonly string[];
  /** Names of parts that all heads share. */
  shared?: readonly string[];
}

const usualParts = ["q_proj", "q_a_proj", "q_a_layernorm", "q_b_proj", "kv_a_proj_with_mqa", "kv_a_layernorm"];

/**
 * Leaves a rank's heads. Where there are parts that nothing is said about, the attention stays whole on every rank.
 * @returns how many heads there are now; null where it stays whole
 */
export function divideLatentHeads(module: Latent, split: Split, options: LatentOptions): number | null {
  const { output = "o_proj", byHead = [], tensors = [], shared = [] } = options;
  const { heads } = module.sizes;
  const queries: unknown = module.q_proj ?? module.q_b_proj;
  const parts = module as unknown as Record<string, unknown>;
  const last = parts[output];
  const more = byHead.map((name) => parts[name]).filter((layer) => layer !== undefined);
  if (!isSliceable(queries) || !isSliceable(last) || !more.every(isSliceable)) return null;
  const known = new Set([...usualParts, "embed_q", "unembed_out", output, ...byHead, ...tensors, ...shared]);
  if (!Object.entries(module).every(([name, part]) => known.has(name) || !hasParameters(part))) return null;

  const share = shareHeads(heads, heads, split);
  const kept = (x: Tensor) => mx.scope(() => mx.contiguous(mx.sliceAxis(x, 0, ...share.queries)));
  for (const layer of [queries, ...more]) keepOutputs(layer, [scaled(share.queries, outputsOf(layer) / heads)]);
  for (const layer of [module.embed_q, module.unembed_out]) {
    layer.update(layer.namedParameters().map(([name, x]) => [name, kept(x)] as const));
  }
  for (const name of tensors) module.update([[name, kept(parts[name] as Tensor)]]);
  parts[output] = new SumOfParts(last as never, scaled(share.queries, inputsOf(last) / heads), split, share);
  return share.queries[1] - share.queries[0];
}
