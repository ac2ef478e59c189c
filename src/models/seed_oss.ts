/** Seed-OSS: Llama with a switch of its own for the bias of attention's last projection. */
import { z } from "zod";
import { GatedMLP } from "../nn";
import { checkHeads, denseFields, size } from "./args";
import { denseAwq } from "./awq-facts";
import { decoder } from "./gguf/decoder";
import { postNormLayer, TensorNames } from "./gguf/names";
import { CausalLM } from "./language-model";
import * as llama from "./llama";

export const Args = z
  .object({
    ...denseFields,
    num_key_value_heads: size,
    head_dim: size,
    attention_out_bias: z.boolean().default(false),
    mlp_bias: z.boolean().default(false),
  })
  .superRefine(checkHeads);

export class Model extends CausalLM {
  constructor(args: z.infer<typeof Args>) {
    super(args, () => {
      const attention = new llama.Attention(args, { outputBias: args.attention_out_bias });
      const mlp = new GatedMLP(args.hidden_size, args.intermediate_size, { bias: args.mlp_bias });
      return new llama.Block(attention, mlp, args);
    });
  }
}

export const awq = denseAwq();

export const gguf = decoder("seed_oss", {
  names: new TensorNames(postNormLayer),
  only: { attention_out_bias: false, mlp_bias: false },
});
