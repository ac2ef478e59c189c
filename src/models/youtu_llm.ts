/** Youtu-LLM: Llama with DeepSeek V2's latent attention. */
import { z } from "zod";
import { GatedMLP, initializeRope } from "../nn";
import { attentionFields, ropeOptions, size } from "./args";
import { blockAwq } from "./awq-facts";
import { UnpackedLatentAttention } from "./deepseek_v2";
import * as deepseek from "./deepseek_v3";
import { decoder } from "./gguf/decoder";
import { joinedKeysValues, latentDecoderLayer, readHeads, writeHeads } from "./gguf/deepseek2";
import { u32 } from "./gguf/facts";
import { TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
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

/** llama.cpp has it as DeepSeek V2 of dense layers alone. */
export const gguf = decoder("deepseek2", {
  matches: (file) => !file.number("expert_count"),
  names: new TensorNames(latentDecoderLayer),
  joined: joinedKeysValues,
  ropeBase: 1_600_000,
  turning: (settings) => (settings as unknown as Args).qk_rope_head_dim,
  only: { mlp_bias: false, rope_traditional: true },
  read: (file, common) => ({ ...readHeads(file, common), rope_scaling: undefined }),
  write(settings) {
    const args = settings as unknown as Args;
    const { scaling } = ropeOptions(args, { base: 1_600_000 });
    // llama.cpp puts YaRN's factor on the scores too.
    if ((scaling?.rope_type ?? scaling?.type ?? "default") !== "default") noPlace("a stretched rotation");
    return {
      ...writeHeads(args),
      leading_dense_block_count: u32(args.num_hidden_layers),
      // llama.cpp asks for them, and makes nothing of them.
      expert_shared_count: u32(0),
      expert_feed_forward_length: u32(args.intermediate_size),
    };
  },
});
