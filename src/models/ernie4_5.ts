/** ERNIE 4.5: Llama that rotates neighbours instead of halves, with one switch for all biases. */
import { z } from "zod";
import { GatedMLP } from "../nn";
import { checkHeads, denseFields, ropeOf, size } from "./args";
import { denseAwq } from "./awq-facts";
import { decoder } from "./gguf/decoder";
import { CausalLM } from "./language-model";
import * as llama from "./llama";

export const Args = z
  .object({
    ...denseFields,
    num_key_value_heads: size,
    max_position_embeddings: size,
    use_bias: z.boolean(),
    tie_word_embeddings: z.boolean(),
  })
  .superRefine(checkHeads);

export class Model extends CausalLM {
  constructor(args: z.infer<typeof Args>) {
    const { use_bias: bias } = args;
    super(args, () => {
      const rope = ropeOf({ ...args, rope_traditional: true });
      const attention = new llama.Attention({ ...args, attention_bias: bias }, { rope });
      return new llama.Block(attention, new GatedMLP(args.hidden_size, args.intermediate_size, { bias }), args);
    });
  }
}

export const awq = denseAwq();

export const gguf = decoder("ernie4_5", { only: { use_bias: false } });
