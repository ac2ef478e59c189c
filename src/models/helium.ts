/** Helium: Llama that turns neighbours, without a bias on the last projection of attention. */
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
    rope_traditional: z.boolean().default(true),
    attention_bias: z.boolean(),
    mlp_bias: z.boolean(),
    tie_word_embeddings: z.boolean(),
  })
  .superRefine(checkHeads);

export class Model extends CausalLM {
  constructor(args: z.infer<typeof Args>) {
    const attention = () => new llama.Attention(args, { rope: ropeOf(args), outputBias: false });
    const mlp = () => new GatedMLP(args.hidden_size, args.intermediate_size, { bias: args.mlp_bias, downLast: true });
    super(args, () => new llama.Block(attention(), mlp(), args));
  }
}

export const awq = denseAwq();

/** Files call it Llama, whose heads lie there as Helium's do, and are read as one. */
export const gguf = decoder("llama", { only: { mlp_bias: false, rope_traditional: true } });
