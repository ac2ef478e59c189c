/** A model's draft head, made for the tensors that there are. */
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { LanguageModel } from "../language-model";
import { NestedLM } from "../nested";
import type { DraftHead, Trunk } from "./draft-head";
import { depthOf, type MtpFacts } from "./facts";

/** The language model of a model for more than text. */
const trunkOf = (model: LanguageModel): Trunk =>
  (model instanceof NestedLM ? model.language_model : model) as LanguageModel & Trunk;

/**
 * A head without weights, and those of a checkpoint that belong to it; null where there are none.
 * @param args the parsed configuration of the model
 */
export function makeDraftHead(
  { sanitize, head }: MtpFacts,
  args: unknown,
  model: LanguageModel,
  tensors: ReadonlyMap<string, Tensor>,
): { head: DraftHead; weights: Map<string, Tensor> } | null {
  const weights = sanitize(tensors, args);
  const depth = depthOf(weights);
  // Parameters are kept; what their making left over is freed.
  return depth === 0 ? null : { head: mx.scope(() => head(trunkOf(model), args, depth)), weights };
}
