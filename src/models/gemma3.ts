/** Gemma 3, the language model of the checkpoints that also see images. */
import type { z } from "zod";
import type { Weights } from "../nn";
import { size } from "./args";
import type { AwqFacts } from "./awq-facts";
import * as text from "./gemma3_text";
import { NestedLM, nestedArgs } from "./nested";

export const Args = nestedArgs(
  text.Args.safeExtend({
    vocab_size: size.default(262_208),
    num_attention_heads: size.default(8),
    num_key_value_heads: size.default(4),
  }),
);

export class Model extends NestedLM {
  constructor(args: z.infer<typeof text.Args>) {
    super(new text.Model(args));
  }

  override loadWeights(weights: Weights, options?: { strict?: boolean }): this {
    const given = new Map(weights);
    (this.language_model as text.Model).tieAs(given, "language_model.");
    return super.loadWeights(given, options);
  }
}

export const awq: AwqFacts = { ...text.awq, inner: "language_model" };

export const gguf = text.facts("language_model.");
