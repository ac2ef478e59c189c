/** What an architecture says of its draft layers (multi-token prediction), and how their tensors are found. */
import type { Tensor } from "../../mlx";
import type { DraftHead, Trunk } from "./draft-head";

export interface MtpFacts {
  /**
   * The tensors of a checkpoint that belong to draft layers, under the head's own names; empty where it has none. Embeddings
   * and heads that checkpoints repeat for them are left out. Applied to what `convert` keeps it changes no name.
   * @param args the parsed configuration
   */
  // biome-ignore lint/suspicious/noExplicitAny: each architecture takes what its own Args give
  sanitize(weights: ReadonlyMap<string, Tensor>, args: any): Map<string, Tensor>;
  /** A head of so many layers for the model. */
  // biome-ignore lint/suspicious/noExplicitAny: as above
  head(trunk: Trunk, args: any, depth: number): DraftHead;
}

/** Ahead of the names in checkpoints for more than text. */
const outer = /^((model|language_model)\.)+/;

/** Ahead of the names in the file that `convert` keeps draft layers in, and in several checkpoints. */
const own = /^mtp\./;

/**
 * The tensors with the names that `rename` gives them, or those that they have behind "mtp.".
 * @param rename gets a name without "model." and "language_model."; null for what belongs to no draft layer
 */
export function draftTensors(
  weights: ReadonlyMap<string, Tensor>,
  rename: (name: string) => string | null = () => null,
): Map<string, Tensor> {
  const found = new Map<string, Tensor>();
  for (const [name, weight] of weights) {
    if (name.endsWith("rotary_emb.inv_freq")) continue;
    const bare = name.replace(outer, "");
    const ours = own.test(bare) ? bare.replace(own, "") : rename(bare);
    if (ours !== null) found.set(ours, weight);
  }
  return found;
}

/** For `draftTensors`: layers behind the first `count`, without the copies of embedding and head. */
export const behind =
  (count: number) =>
  (name: string): string | null => {
    const [, index, rest] = /^layers\.(\d+)\.(.+)$/.exec(name) ?? [];
    const isShared = rest?.startsWith("embed_tokens.") || rest?.startsWith("shared_head.head.");
    return rest === undefined || Number(index) < count || isShared ? null : `layers.${Number(index) - count}.${rest}`;
  };

/** How many draft layers the tensors are of. */
export function depthOf(weights: ReadonlyMap<string, Tensor>): number {
  const indices = [...weights.keys()].map((name) => /^layers\.(\d+)\./.exec(name)?.[1]);
  return new Set(indices.filter((index) => index !== undefined)).size;
}
