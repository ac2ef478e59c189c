/** GLM 4.5 to 4.7: DeepSeek V3's experts behind grouped-query attention that turns part of each head. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import { RMSNorm, type RopeOptions, stackExperts } from "../nn";
import { checkHeads, denseFields, headsOf, ropeOf, size } from "./args";
import { expertsAwq } from "./awq-facts";
import * as deepseek from "./deepseek_v3";
import { decoder, expertGroups, routedExperts } from "./gguf/decoder";
import { gating } from "./gguf/deepseek2";
import { u32 } from "./gguf/facts";
import { expertLayer, fusedExperts, plainLayer, sharedExpert, TensorNames } from "./gguf/names";
import { CausalLM } from "./language-model";
import * as llama from "./llama";
import { withoutDraftLayers } from "./mtp/draft-layers";
import { behind, depthOf, draftTensors, type MtpFacts } from "./mtp/facts";
import { LayeredHead } from "./mtp/layered-head";

export const Args = z
  .object({
    ...denseFields,
    ...deepseek.expertFields,
    num_key_value_heads: size,
    head_dim: size,
    use_qk_norm: z.boolean().default(false),
    partial_rotary_factor: z.number().positive().max(1).nullish(),
    tie_word_embeddings: z.boolean().default(false),
  })
  .superRefine(checkHeads)
  .superRefine(deepseek.checkExperts);

type Args = z.infer<typeof Args>;

function rotated(args: Args): RopeOptions {
  const { rope_parameters: set, partial_rotary_factor } = args;
  const stated = partial_rotary_factor ?? set?.partial_rotary_factor;
  const share = typeof stated === "number" ? stated : 0.5;
  return { ...ropeOf({ ...args, rope_traditional: false }), dims: Math.trunc(headsOf(args).headDim * share) };
}

class Attention extends llama.Attention {
  q_norm?: RMSNorm;
  k_norm?: RMSNorm;

  constructor(args: Args) {
    super(args, { rope: rotated(args), outputBias: false });
    if (!args.use_qk_norm) return;
    this.q_norm = new RMSNorm(this.headDim, args.rms_norm_eps);
    this.k_norm = new RMSNorm(this.headDim, args.rms_norm_eps);
  }
}

const block = (args: Args, index: number) =>
  new llama.Block(new Attention(args), deepseek.feedForward(args, index), args);

export class Model extends CausalLM {
  readonly #experts: number;

  constructor(args: Args) {
    super(args, (index) => block(args, index));
    this.#experts = args.n_routed_experts ?? 0;
  }

  /** Stacks the experts, and drops the layers that predict further tokens. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const count = this.#experts;
    const sanitized = withoutDraftLayers(super.sanitize(weights), this.layers.length);
    for (const layer of this.layers.keys()) {
      const mlp = `model.layers.${layer}.mlp`;
      if (count) stackExperts(sanitized, { count, from: `${mlp}.experts`, to: `${mlp}.switch_mlp` });
    }
    return sanitized;
  }
}

export const mtp: MtpFacts = {
  sanitize(weights, { num_hidden_layers: layers, n_routed_experts: count }: Args) {
    const found = draftTensors(weights, behind(layers));
    for (const index of Array.from({ length: depthOf(found) }).keys()) {
      const mlp = `layers.${index}.mlp`;
      if (count) stackExperts(found, { count, from: `${mlp}.experts`, to: `${mlp}.switch_mlp` });
    }
    return found;
  },
  head(trunk, args: Args, depth) {
    const blocks = Array.from({ length: depth }, (_, i) => block(args, args.num_hidden_layers + i));
    return new LayeredHead(trunk, blocks, args);
  },
};

export const { keepsDtype } = deepseek;

export const awq = expertsAwq("mlp");

export const gguf = decoder("glm4moe", {
  names: new TensorNames(
    {
      ...plainLayer,
      ...expertLayer("mlp"),
      ...sharedExpert("mlp.shared_experts"),
      post_attention_norm: "post_attention_layernorm",
    },
    { parameters: { "exp_probs_b.bias": "mlp.gate.e_score_correction_bias" }, halves: fusedExperts("mlp") },
  ),
  turning: (settings) => rotated(settings as unknown as Args).dims,
  integers: {
    ...routedExperts,
    leading_dense_block_count: "first_k_dense_replace",
    ...expertGroups,
  },
  floats: { expert_weights_scale: "routed_scaling_factor" },
  flags: { expert_weights_norm: "norm_topk_prob" },
  only: { moe_layer_freq: 1 },
  read: (file, { partial_rotary_factor = 1 }) => ({
    use_qk_norm: file.shape("blk.0.attn_q_norm.weight") !== undefined,
    partial_rotary_factor,
  }),
  write(settings) {
    const { n_group: groups, topk_group: used } = settings as unknown as Args;
    const isGrouped = groups > 1 && used < groups;
    return {
      expert_gating_func: u32(gating.sigmoid),
      ...(isGrouped ? {} : { expert_group_count: undefined, expert_group_used_count: undefined }),
    };
  },
});
