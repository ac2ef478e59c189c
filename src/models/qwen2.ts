/** Qwen 2 and 2.5: Llama with biases on queries, keys and values alone. */
import { z } from "zod";
import { GatedMLP } from "../nn";
import { attentionFields, checkHeads, ropeOf, size, trunkFields } from "./args";
import { denseAwq } from "./awq-facts";
import { CausalLM } from "./language-model";
import * as llama from "./llama";

export const Args = z
  .object({
    ...trunkFields,
    ...attentionFields,
    intermediate_size: size,
    num_key_value_heads: size,
  })
  .superRefine(checkHeads);

export class Model extends CausalLM {
  constructor(args: z.infer<typeof Args>) {
    const rope = ropeOf(args, { base: 1_000_000 });
    const attention = () => new llama.Attention({ ...args, attention_bias: true }, { rope, outputBias: false });
    const mlp = () => new GatedMLP(args.hidden_size, args.intermediate_size);
    super(args, () => new llama.Block(attention(), mlp(), args));
  }
}

export const awq = denseAwq();
