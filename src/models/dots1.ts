/** dots.llm1: Qwen 3's attention, and DeepSeek V3's experts; the first layers are dense. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import { GatedMLP, GroupedRouter, Module, mixExperts, SwitchGLU, stackExperts } from "../nn";
import { checkHeads, count, denseFields, ropeOf, size } from "./args";
import { blockAwq } from "./awq-facts";
import * as deepseek from "./deepseek_v3";
import { decoder, expertGroups, routedExperts } from "./gguf/decoder";
import { gating } from "./gguf/deepseek2";
import { u32 } from "./gguf/facts";
import { plainLayer, sharedExpert, TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { CausalLM } from "./language-model";
import { Block } from "./llama";
import { Attention } from "./qwen3";

export const Args = z
  .object({
    ...denseFields,
    num_key_value_heads: size,
    first_k_dense_replace: count,
    moe_intermediate_size: size,
    n_routed_experts: size,
    n_shared_experts: size,
    norm_topk_prob: z.boolean(),
    num_experts_per_tok: size,
    routed_scaling_factor: z.number(),
    n_group: size.nullish().transform((groups) => groups ?? 1),
    topk_group: size.nullish().transform((groups) => groups ?? 1),
    mlp_bias: z.boolean().default(false),
    tie_word_embeddings: z.boolean().default(false),
  })
  .superRefine(checkHeads)
  .superRefine(deepseek.checkExperts);

type Args = z.infer<typeof Args>;

class MoE extends Module {
  experts: SwitchGLU;
  gate: GroupedRouter;
  shared_experts: GatedMLP;

  constructor(args: Args) {
    super();
    const { hidden_size: dims, moe_intermediate_size: hidden, n_routed_experts: experts, mlp_bias: bias } = args;
    this.experts = new SwitchGLU(dims, hidden, experts);
    this.gate = new GroupedRouter({
      dims,
      experts,
      expertsPerToken: args.num_experts_per_tok,
      groups: args.n_group,
      groupsPerToken: args.topk_group,
      normalize: args.norm_topk_prob,
      scale: args.routed_scaling_factor,
    });
    this.shared_experts = new GatedMLP(dims, hidden * args.n_shared_experts, { bias, downLast: true });
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    const mixed = mixExperts(x, this.experts, this.gate.forward(x)).astype(x.dtype);
    return mixed.add(this.shared_experts.forward(x));
  }
}

export class Model extends CausalLM {
  readonly #experts: number;

  constructor(args: Args) {
    const { hidden_size: D, intermediate_size, mlp_bias: bias } = args;
    super(args, (index) => {
      const attention = new Attention(args, { rope: ropeOf({ ...args, rope_traditional: false }) });
      const isSparse = index >= args.first_k_dense_replace;
      const mlp = isSparse ? new MoE(args) : new GatedMLP(D, intermediate_size, { bias, downLast: true });
      return new Block(attention, mlp, args);
    });
    this.#experts = args.n_routed_experts;
  }

  /** Stacks the experts, which the original checkpoints have one by one. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = super.sanitize(weights);
    for (const layer of this.layers.keys()) {
      const experts = `model.layers.${layer}.mlp.experts`;
      stackExperts(sanitized, { count: this.#experts, from: experts, to: experts });
    }
    return sanitized;
  }
}

export const { keepsDtype } = deepseek;

export const awq = blockAwq();

export const gguf = decoder("dots1", {
  names: new TensorNames(
    {
      ...plainLayer,
      ffn_gate_inp: "mlp.gate",
      ffn_gate_exps: "mlp.experts.gate_proj",
      ffn_up_exps: "mlp.experts.up_proj",
      ffn_down_exps: "mlp.experts.down_proj",
      ...sharedExpert("mlp.shared_experts"),
    },
    {
      parameters: { "exp_probs_b.bias": "mlp.gate.e_score_correction_bias" },
      halves: { ffn_gate_up_exps: ["mlp.experts.gate_proj", "mlp.experts.up_proj"] },
    },
  ),
  integers: {
    ...routedExperts,
    leading_dense_block_count: "first_k_dense_replace",
    ...expertGroups,
  },
  floats: { expert_weights_scale: "routed_scaling_factor" },
  flags: { expert_weights_norm: "norm_topk_prob" },
  only: { attention_bias: false, mlp_bias: false, tie_word_embeddings: false },
  write({ num_attention_heads: heads, num_key_value_heads: kvHeads }) {
    // llama.cpp's loader takes as many of keys as of queries.
    if (kvHeads !== heads) noPlace(`"num_key_value_heads" ${kvHeads} (not ${heads})`);
    return { expert_gating_func: u32(gating.sigmoid) };
  },
});
