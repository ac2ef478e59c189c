/** K2 Horizon: Llama with a base of rotation for long contexts, which YaRN stretches. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import { GatedMLP } from "../nn";
import { checkHeads, denseFields, ropeOf, size } from "./args";
import { denseAwq } from "./awq-facts";
import { decoder } from "./gguf/decoder";
import { CausalLM } from "./language-model";
import * as llama from "./llama";
import { withoutPrefix } from "./nested";

export const Args = z
  .object({
    ...denseFields,
    hidden_size: size.default(4096),
    num_hidden_layers: size.default(36),
    intermediate_size: size.default(12_288),
    num_attention_heads: size.default(32),
    num_key_value_heads: size.default(8),
    head_dim: size.default(128),
    vocab_size: size.default(250_624),
    rms_norm_eps: z.number().positive().default(1e-6),
    max_position_embeddings: size.default(524_288),
    tie_word_embeddings: z.boolean().default(false),
  })
  .superRefine(checkHeads);

export class Model extends CausalLM {
  constructor(args: z.infer<typeof Args>) {
    const rope = ropeOf({ ...args, rope_traditional: false }, { base: 10_000_000 });
    const mlp = () => new GatedMLP(args.hidden_size, args.intermediate_size);
    super(args, () => new llama.Block(new llama.Attention(args, { rope }), mlp(), args));
  }

  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    return super.sanitize(withoutPrefix(weights));
  }
}

export const awq = denseAwq();

export const gguf = decoder("k2-horizon", {
  ropeBase: 10_000_000,
  only: { attention_bias: false, rope_traditional: false },
  read(file) {
    const groups = file.number("attention.group_norm_groups") ?? 1;
    if (groups > 1) file.wrong(`its norms are by ${groups} groups; mlxlm has them whole`);
    return {};
  },
});
