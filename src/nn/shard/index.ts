/** Tensor parallelism: each process has a part of every large layer. Shoeybi et al. 2019, arXiv:1909.08053. */
import type { distributed } from "../../mlx";
import type { Module } from "../module";
import { GatherOfParts } from "./gather-of-parts";
import { isSliceable } from "./slices";
import { Split } from "./split";

export { type DivideOptions, divideHeads, type Headed, scaled } from "./attention";
export { divideExperts, divideInner, innerPart } from "./feed-forward";
export { type Kept, keptOf, piecesOf } from "./kept";
export { divideLatentHeads, type LatentOptions } from "./latent-attention";
export { divideNamedHeads, jointPieces, type NamedHeads } from "./named-attention";
export { RMSNormOfParts } from "./norm";
export { behind, keepChannels, keepPlaces } from "./recurrent";
export { inputsOf, isSliceable, keepInputs, keepOutputs, outputsOf, takeBias } from "./slices";
export { type HeadShare, type Range, Split, shareHeads } from "./split";
export { SumOfParts } from "./sum-of-parts";

/** A block that knows how it is divided. */
export interface Divisible extends Module {
  /** Leaves this rank's part, lazily. The block computes the same as before, on all ranks together. */
  shard(split: Split): void;
}

const isDivisible = (module: Module): module is Divisible =>
  typeof (module as Module & { shard?: unknown }).shard === "function";

const dividedAmong = new WeakMap<object, distributed.Group>();

/** The processes that a model's layers are divided among; undefined where this one has them whole. */
export const groupOf = (model: object): distributed.Group | undefined => dividedAmong.get(model);

/**
 * Divides a model among the processes of a group, which all must call it. What does not know how it is divided stays
 * whole on each of them. Lazy: of weights that are still in their files, only this rank's part is read.
 */
export function shardModel(model: Module, group: distributed.Group): void {
  if (group.size === 1) return;
  const split = new Split(group);
  const visit = (module: Module) => {
    if (isDivisible(module)) module.shard(split);
    else for (const [, child] of module.children()) visit(child);
  };
  visit(model);
  dividedAmong.set(model, group);
  const { lm_head: head } = model as { lm_head?: Module };
  if (isSliceable(head)) model.replace("lm_head", new GatherOfParts(head as never, split));
}
