/** Mistral 3 and Pixtral: a language model of one of three families in a checkpoint that also sees. */
import { z } from "zod";
import { latentJoins, usualJoins } from "../nn";
import { type AwqFacts, denseAwq } from "./awq-facts";
import { latentDecoderLayer } from "./gguf/deepseek2";
import type { GgufFacts } from "./gguf/facts";
import { fusedExperts, TensorNames } from "./gguf/names";
import type { CausalLM } from "./language-model";
import * as llama from "./llama";
import * as ministral3 from "./ministral3";
import * as mistral4 from "./mistral4";
import { NestedLM, nestedArgs } from "./nested";

interface Family {
  Args: z.ZodType;
  Model: new (
    // biome-ignore lint/suspicious/noExplicitAny: each takes what its own Args give
    args: any,
  ) => CausalLM;
  gguf: GgufFacts;
}

/** By `model_type` of `text_config`; all others are Mistral. */
const families: Record<string, Family> = { ministral3, mistral4 };

const familyOf = (type: unknown): Family => families[type as string] ?? llama;

/** What transformers fills in: Pixtral's configuration leaves it out. */
const usualHeads = 32;

/** A language model: its family, and its configuration. */
const Text = z.record(z.string(), z.unknown()).transform((config, context) => {
  const { tie_word_embeddings = false, num_attention_heads = usualHeads } = config;
  const family = familyOf(config.model_type);
  const result = family.Args.safeParse({ ...config, tie_word_embeddings, num_attention_heads });
  if (result.success) return { family, text: { ...config, ...(result.data as object) } };
  for (const issue of result.error.issues) context.issues.push({ ...issue, input: config } as z.core.$ZodRawIssue);
  return z.NEVER;
});

type Text = z.infer<typeof Text>;

export const Args = nestedArgs(Text);

export class Model extends NestedLM {
  constructor({ family, text }: Text) {
    super(new family.Model(text));
  }
}

export const joins = [...usualJoins, ...latentJoins];

export const awq: AwqFacts = { inner: "language_model", ...denseAwq() };

const textOf = (config: object) => config as Text;

/** Those of the language model's family. Files are the language model's, and read as such. */
export const gguf: GgufFacts = {
  ...llama.gguf,
  names: new TensorNames(latentDecoderLayer, { halves: fusedExperts("mlp"), prefix: "language_model." }),
  changes: (config) => textOf(config).family.gguf.changes?.(textOf(config).text) ?? {},
  write(config, source) {
    const { family, text } = textOf(config);
    const { architecture = family.gguf.architecture, ...written } = family.gguf.write(text, source);
    return { architecture, ...written };
  },
};
