/** GLM 4.7 Flash: DeepSeek V3 with the configuration's epsilon in the norms of latent vectors. */
import { z } from "zod";
import { LatentAttention } from "../nn";
import { size } from "./args";
import { blockAwq } from "./awq-facts";
import * as deepseek from "./deepseek_v3";
import { latent } from "./gguf/deepseek2";
import { Block } from "./llama";

export const Args = z
  .object({
    ...deepseek.fields,
    vocab_size: size.default(154_880),
    hidden_size: size.default(2048),
    intermediate_size: size.default(10_240),
    moe_intermediate_size: size.default(1536),
    num_hidden_layers: size.default(47),
    num_attention_heads: size.default(20),
    n_shared_experts: size.nullable().default(1),
    n_routed_experts: size.nullable().default(64),
    routed_scaling_factor: z.number().default(1.8),
    q_lora_rank: size.nullable().default(768),
    qk_nope_head_dim: size.default(192),
    v_head_dim: size.default(256),
    num_experts_per_tok: size.default(4),
    first_k_dense_replace: z.int().nonnegative().default(1),
    max_position_embeddings: size.default(202_752),
    rms_norm_eps: z.number().positive().default(1e-5),
  })
  .superRefine(deepseek.checkExperts);

function block(args: deepseek.Args, index: number): Block {
  const { rope, scale } = deepseek.latentScaling(args, 1_000_000);
  const sizes = { ...deepseek.attentionSizes(args), eps: args.rms_norm_eps };
  const attention = new LatentAttention(sizes, rope, scale);
  return new Block(attention, deepseek.feedForward(args, index), args, deepseek.arrayMask);
}

export class Model extends deepseek.LatentLM {
  constructor(args: deepseek.Args) {
    super(args, (index) => block(args, index));
  }
}

export const mtp = deepseek.latentMtp(block);

export const { joins, keepsDtype } = deepseek;

/** llama.cpp's way to know it: the number of its layers and of its tokens. */
export const gguf = latent({
  matches: (file) => file.shape("token_embd.weight")?.[0] === 154_880 && [47, 48].includes(file.need("block_count")),
  ropeBase: 1_000_000,
});

export const awq = blockAwq();
