/** Mistral 3 and Pixtral: a language model of one of three families in a checkpoint that also sees. */
import { z } from "zod";
import { latentJoins, usualJoins } from "../nn";
import { type AwqFacts, denseAwq } from "./awq-facts";
import type { CausalLM } from "./language-model";
import * as llama from "./llama";
import * as ministral3 from "./ministral3";
import * as mistral4 from "./mistral4";
import { NestedLM, nestedArgs } from "./nested";

/** A language model that is still to be made. */
type Maker = () => CausalLM;

const maker =
  <A>(Args: z.ZodType<A>, Model: new (args: A) => CausalLM) =>
  (config: unknown) => {
    const result = Args.safeParse(config);
    return result.success ? { make: () => new Model(result.data) } : { issues: result.error.issues };
  };

const families: Record<string, ReturnType<typeof maker>> = {
  ministral3: maker(ministral3.Args, ministral3.Model),
  mistral4: maker(mistral4.Args, mistral4.Model),
};

const mistral = maker(llama.Args, llama.Model);

/** What transformers fills in: Pixtral's configuration leaves it out. */
const usualHeads = 32;

const TextArgs = z.record(z.string(), z.unknown()).transform((config, context): Maker => {
  const { model_type: type, tie_word_embeddings = false, num_attention_heads = usualHeads } = config;
  const family = families[type as string] ?? mistral;
  const { make, issues = [] } = family({ ...config, tie_word_embeddings, num_attention_heads });
  for (const issue of issues) context.issues.push({ ...issue, input: config } as z.core.$ZodRawIssue);
  return make ?? z.NEVER;
});

export const Args = nestedArgs(TextArgs);

export class Model extends NestedLM {
  constructor(make: Maker) {
    super(make());
  }
}

export const joins = [...usualJoins, ...latentJoins];

export const awq: AwqFacts = { inner: "language_model", ...denseAwq() };
