/** EXAONE MoE: Qwen 3's attention, of layers that slide and layers that see all without positions, and DeepSeek V3's experts. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import { GatedMLP, stackExperts } from "../nn";
import { AttentionType, checkHeads, checkLayerTypes, denseFields, maskOf, ropeOf, size } from "./args";
import { blockAwq } from "./awq-facts";
import * as deepseek from "./deepseek_v3";
import { countedExperts, decoder, expertGroups } from "./gguf/decoder";
import { gating } from "./gguf/deepseek2";
import { u32 } from "./gguf/facts";
import { expertLayer, fusedExperts, plainLayer, sharedExpert, TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { CausalLM } from "./language-model";
import { Block } from "./llama";
import { Attention } from "./qwen3";

const { n_group, topk_group, norm_topk_prob, scoring_func, topk_method } = deepseek.expertFields;

export const Args = z
  .object({
    ...denseFields,
    head_dim: size,
    num_key_value_heads: size,
    moe_intermediate_size: size,
    num_experts: size,
    num_experts_per_tok: size,
    num_shared_experts: z.int().nonnegative(),
    sliding_window: size.nullish(),
    layer_types: z.array(AttentionType),
    is_moe_layer: z.array(z.boolean()),
    ...{ n_group, topk_group, norm_topk_prob, scoring_func, topk_method },
    routed_scaling_factor: z.number().default(2.5),
    tie_word_embeddings: z.boolean().default(false),
  })
  .superRefine(checkHeads)
  .superRefine(checkLayerTypes)
  .superRefine(({ is_moe_layer: flags, num_hidden_layers: count }, context) => {
    if (flags.length === count) return;
    const message = `has ${flags.length} entries, but "num_hidden_layers" is ${count}`;
    context.addIssue({ code: "custom", path: ["is_moe_layer"], message });
  })
  .transform((args) => ({ ...args, n_routed_experts: args.num_experts, n_shared_experts: args.num_shared_experts }))
  .superRefine(deepseek.checkExperts);

type Args = z.infer<typeof Args>;

export class Model extends CausalLM {
  readonly #experts: number;

  constructor(args: Args) {
    const { layer_types: types, num_experts: experts } = args;
    const isMixed = types.includes("sliding_attention");
    super(args, (index) => {
      const type = types[index]!;
      const rotated = { ...args, rope_traditional: false };
      const rope = isMixed && type === "full_attention" ? null : ropeOf(rotated, { base: 1_000_000, layerType: type });
      const mlp = args.is_moe_layer[index]
        ? new deepseek.MoE(args, experts)
        : new GatedMLP(args.hidden_size, args.intermediate_size, { downLast: true });
      return new Block(new Attention(args, { rope }), mlp, args, maskOf(type, args));
    });
    this.#experts = experts;
  }

  /** Stacks the experts, and drops the layers that predict further tokens. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const bias = /(mlp)\.(e_score_correction_bias)$/;
    const own = [...super.sanitize(weights)].filter(([name]) => !name.startsWith("mtp."));
    const sanitized = new Map(own.map(([name, weight]) => [name.replace(bias, "$1.gate.$2"), weight]));
    for (const layer of this.layers.keys()) {
      const mlp = `model.layers.${layer}.mlp`;
      stackExperts(sanitized, { count: this.#experts, from: `${mlp}.experts`, to: `${mlp}.switch_mlp` });
    }
    return sanitized;
  }
}

export const { keepsDtype } = deepseek;

export const awq = blockAwq();

export const gguf = decoder("exaone-moe", {
  names: new TensorNames(
    { ...plainLayer, ...expertLayer("mlp"), ...sharedExpert("mlp.shared_experts") },
    { parameters: { "exp_probs_b.bias": "mlp.gate.e_score_correction_bias" }, halves: fusedExperts("mlp") },
  ),
  ropeBase: 1_000_000,
  windows: { period: 4 },
  integers: {
    ...countedExperts,
    ...expertGroups,
  },
  floats: { expert_weights_scale: "routed_scaling_factor" },
  flags: { expert_weights_norm: "norm_topk_prob" },
  only: { attention_bias: false, tie_word_embeddings: false },
  read(file, { num_hidden_layers: layers, layer_types }) {
    if (!layer_types) file.wrong("no layer of it slides");
    return {
      is_moe_layer: Array.from(
        { length: layers as number },
        (_, i) => file.shape(`blk.${i}.ffn_gate_inp.weight`) !== undefined,
      ),
    };
  },
  write(settings) {
    const { layer_types: types, is_moe_layer: sparse, ...args } = settings as unknown as Args;
    // llama.cpp turns no heads of layers that see all.
    if (!types.includes("sliding_attention")) noPlace('"layer_types" without sliding_attention');
    const dense = sparse.indexOf(true);
    if (dense < 0 || sparse.includes(false, dense)) noPlace('"is_moe_layer" with a dense layer behind sparse ones');
    if (args.num_shared_experts < 1) noPlace("experts without a shared one");
    return {
      expert_shared_feed_forward_length: u32(args.moe_intermediate_size * args.num_shared_experts),
      expert_gating_func: u32(gating.sigmoid),
      leading_dense_block_count: u32(dense),
    };
  },
});
