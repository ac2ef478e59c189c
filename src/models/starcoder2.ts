/** StarCoder 2: Llama with LayerNorm, biases everywhere, and a feed-forward block without a gate. */
import { z } from "zod";
import { LayerNorm, NamedMLP } from "../nn";
import { checkHeads, geluOf, ropeFields, ropeOf, size } from "./args";
import { decoder } from "./gguf/decoder";
import { plainLayer, TensorNames } from "./gguf/names";
import { CausalLM } from "./language-model";
import * as llama from "./llama";

export const Args = z
  .object({
    hidden_size: size,
    num_hidden_layers: size,
    intermediate_size: size,
    num_attention_heads: size,
    num_key_value_heads: size,
    norm_epsilon: z.number().positive().default(1e-5),
    vocab_size: size.default(49_152),
    ...ropeFields,
    tie_word_embeddings: z.boolean().default(true),
    hidden_act: z.string().nullish(),
  })
  .superRefine(checkHeads);

const names = { up: "c_fc", down: "c_proj" };

export class Model extends CausalLM {
  constructor(args: z.infer<typeof Args>) {
    const { hidden_size: D, intermediate_size: hidden, norm_epsilon: eps } = args;
    const sizes = { ...args, rms_norm_eps: eps, attention_bias: true, rope_traditional: false };
    const norm = (dims: number) => new LayerNorm(dims, eps);
    const block = () => {
      const attention = new llama.Attention(sizes, { rope: ropeOf(sizes, { base: 100_000 }) });
      const mlp = new NamedMLP(D, hidden, { names, bias: true, activation: geluOf(args.hidden_act) });
      return new llama.Block(attention, mlp, sizes, undefined, norm);
    };
    super(sizes, block, { norm });
  }
}

export const gguf = decoder("starcoder2", {
  names: new TensorNames({ ...plainLayer, ffn_up: "mlp.c_fc", ffn_down: "mlp.c_proj" }),
  epsilon: ["attention.layer_norm_epsilon", "norm_epsilon"],
  ropeBase: 100_000,
});
