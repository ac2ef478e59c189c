/** Youtu-LLM: Llama with DeepSeek V2's latent attention. */
import { z } from "zod";
import { GatedMLP, initializeRope } from "../nn";
import { attentionFields, ropeOptions, size } from "./args";
import { blockAwq } from "./awq-facts";
import { UnpackedLatentAttention } from "./deepseek_v2";
import * as deepseek from "./deepseek_v3";
import { CausalLM } from "./language-model";
import { Block } from "./llama";

const { rope_theta, rope_scaling, rope_parameters, attention_bias } = attentionFields;

export const Args = z.object({
  vocab_size: size.default(128_256),
  hidden_size: size.default(2048),
  intermediate_size: size.default(6144),
  num_hidden_layers: size.default(32),
  num_attention_heads: size.default(16),
  kv_lora_rank: size.default(512),
  q_lora_rank: size.nullable().default(1536),
  qk_rope_head_dim: size.default(64),
  v_head_dim: size.default(128),
  qk_nope_head_dim: size.default(128),
  max_position_embeddings: size.default(131_072),
  rms_norm_eps: z.number().positive().default(1e-6),
  rope_traditional: z.boolean().default(true),
  ...{ rope_theta, rope_scaling, rope_parameters, attention_bias },
  mlp_bias: z.boolean().default(false),
  tie_word_embeddings: z.boolean().default(true),
});

type Args = z.infer<typeof Args>;

function attentionOf(args: Args): UnpackedLatentAttention {
  const { qk_rope_head_dim: dims, max_position_embeddings: maxPositions, rope_traditional: traditional } = args;
  const options = ropeOptions(args, { base: 1_600_000 });
  const rope = initializeRope({ dims, traditional, maxPositions, ...options });
  const sizes = { ...deepseek.attentionSizes(args), eps: args.rms_norm_eps };
  return new UnpackedLatentAttention(sizes, { rope, scale: (args.qk_nope_head_dim + dims) ** -0.5 });
}

export class Model extends CausalLM {
  constructor(args: Args) {
    const { hidden_size: D, intermediate_size, mlp_bias: bias } = args;
    const mlp = () => new GatedMLP(D, intermediate_size, { bias, downLast: true });
    super(args, () => new Block(attentionOf(args), mlp(), args));
  }
}

export const awq = blockAwq();
