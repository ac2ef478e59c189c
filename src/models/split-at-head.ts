/** A model as its trunk and its head, where it is no more than these. */
import type { Tensor } from "../mlx";
import type { Cache, ForwardOptions } from "../nn";
import { CausalLM, type LanguageModel } from "./language-model";
import { NestedLM } from "./nested";

/** A model whose logits are `scores(hidden(…))`, each token's by themselves. */
export interface SplitModel extends LanguageModel {
  /** Token ids (B, T) → hidden states ahead of the head, (B, T, D) */
  hidden(inputs: Tensor, options?: ForwardOptions<Cache>): Tensor;
  /** Hidden states (…, D) → logits (…, V) */
  scores(hidden: Tensor): Tensor;
}

/** The model in two parts; null where its `forward` is another one than theirs together. */
export function splitAtHead(model: LanguageModel): SplitModel | null {
  if (model instanceof NestedLM && model.forward === NestedLM.prototype.forward)
    return splitAtHead(model.language_model);
  const isPlain = model instanceof CausalLM && model.forward === CausalLM.prototype.forward;
  return isPlain ? (model as unknown as SplitModel) : null;
}
