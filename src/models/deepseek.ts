/** DeepSeek (the first): grouped-query attention, and experts by a softmax beside shared ones. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import { stackExperts } from "../nn";
import { checkHeads, denseFields, ropeOf, size } from "./args";
import { blockAwq } from "./awq-facts";
import { MoE } from "./deepseek_v2";
import * as deepseek from "./deepseek_v3";
import { decoder, routedExperts } from "./gguf/decoder";
import { f32, flag } from "./gguf/facts";
import { expertLayer, fusedExperts, plainLayer, sharedExpert, TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { CausalLM } from "./language-model";
import * as llama from "./llama";

export const Args = z
  .object({
    ...denseFields,
    vocab_size: size.default(102_400),
    hidden_size: size.default(4096),
    intermediate_size: size.default(11_008),
    moe_intermediate_size: size.default(1407),
    num_hidden_layers: size.default(30),
    num_attention_heads: size.default(32),
    num_key_value_heads: size.default(32),
    n_shared_experts: size.nullish(),
    n_routed_experts: size.nullish(),
    num_experts_per_tok: size.default(1),
    moe_layer_freq: size.default(1),
    first_k_dense_replace: deepseek.expertFields.first_k_dense_replace,
    max_position_embeddings: size.default(2048),
    rms_norm_eps: z.number().positive().default(1e-6),
  })
  .transform((args) => ({ ...args, n_group: 1, topk_group: 1, routed_scaling_factor: 1, tie_word_embeddings: false }))
  .superRefine(checkHeads)
  .superRefine(deepseek.checkExperts);

type Args = z.infer<typeof Args>;

export class Model extends CausalLM {
  readonly #experts: number;

  constructor(args: Args) {
    const { n_routed_experts: experts, first_k_dense_replace: dense, moe_layer_freq: frequency } = args;
    super(args, (index) => {
      const attention = new llama.Attention(args, { rope: ropeOf({ ...args, rope_traditional: false }) });
      const isSparse = experts && index >= dense && index % frequency === 0;
      const mlp = isSparse ? new MoE(args, experts) : deepseek.mlpOf(args.hidden_size, args.intermediate_size);
      return new llama.Block(attention, mlp, args);
    });
    this.#experts = experts ?? 0;
  }

  /** Stacks the experts, which the original checkpoints have one by one. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const count = this.#experts;
    const sanitized = super.sanitize(weights);
    for (const layer of this.layers.keys()) {
      const mlp = `model.layers.${layer}.mlp`;
      if (count) stackExperts(sanitized, { count, from: `${mlp}.experts`, to: `${mlp}.switch_mlp` });
    }
    return sanitized;
  }
}

export const awq = blockAwq();

export const gguf = decoder("deepseek", {
  names: new TensorNames(
    { ...plainLayer, ...expertLayer("mlp"), ...sharedExpert("mlp.shared_experts") },
    { halves: fusedExperts("mlp") },
  ),
  pairsRows: true,
  integers: {
    ...routedExperts,
    leading_dense_block_count: "first_k_dense_replace",
  },
  only: { moe_layer_freq: 1, attention_bias: false },
  write(settings) {
    const { n_routed_experts: experts, n_shared_experts: shared } = settings as unknown as Args;
    if (!experts || !shared) noPlace("a model without routed and shared experts");
    return { expert_weights_scale: f32(1), expert_weights_norm: flag(false) };
  },
});
