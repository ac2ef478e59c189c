/** MiMo: Qwen 2 without sliding windows, and with layers that predict further tokens, which are left out. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import { GatedMLP } from "../nn";
import { checkHeads, denseFields, size } from "./args";
import { denseAwq } from "./awq-facts";
import { CausalLM } from "./language-model";
import { Block } from "./llama";
import { attentionOf } from "./qwen2";

export const Args = z
  .object({
    ...denseFields,
    num_key_value_heads: size,
    max_position_embeddings: size.default(32_768),
    tie_word_embeddings: z.boolean().default(false),
  })
  .superRefine(checkHeads);

export class Model extends CausalLM {
  constructor(args: z.infer<typeof Args>) {
    const attention = () => attentionOf(args, "full_attention", 10_000);
    super(args, () => new Block(attention(), new GatedMLP(args.hidden_size, args.intermediate_size), args));
  }

  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const kept = [...weights].filter(([name]) => !name.startsWith("model.mtp_layers."));
    return super.sanitize(new Map(kept));
  }
}

export const awq = denseAwq();
