/** Mellum: Qwen 3's mixture of experts in every layer, of which some slide, with rotary settings for each type of layer. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import { SparseMLP, stackExperts } from "../nn";
import {
  AttentionType,
  checkExperts,
  checkHeads,
  checkLayerTypes,
  denseFields,
  maskOf,
  RopeParameters,
  ropeOf,
  ropeOptions,
  size,
} from "./args";
import { expertsAwq } from "./awq-facts";
import { decoder } from "./gguf/decoder";
import { expertLayer, plainLayer, TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { CausalLM } from "./language-model";
import { Block } from "./llama";
import { Attention } from "./qwen3";

export const Args = z
  .object({
    ...denseFields,
    head_dim: size,
    num_key_value_heads: size,
    num_experts: size,
    num_experts_per_tok: size,
    moe_intermediate_size: size,
    norm_topk_prob: z.boolean(),
    sliding_window: size,
    layer_types: z.array(AttentionType),
    rope_parameters: RopeParameters,
    tie_word_embeddings: z.boolean(),
  })
  .superRefine(checkHeads)
  .superRefine(checkLayerTypes)
  .superRefine(checkExperts("num_experts_per_tok", "num_experts"));

type Args = z.infer<typeof Args>;

export class Model extends CausalLM {
  readonly #experts: number;

  constructor(args: Args) {
    super(args, (index) => {
      const type = args.layer_types[index]!;
      const sets = { ...args, rope_theta: null, rope_scaling: null, rope_traditional: false };
      const rope = ropeOf(sets, { layerType: type });
      const mlp = new SparseMLP({
        dims: args.hidden_size,
        hiddenDims: args.moe_intermediate_size,
        experts: args.num_experts,
        expertsPerToken: args.num_experts_per_tok,
        normalize: args.norm_topk_prob,
      });
      return new Block(new Attention(args, { rope }), mlp, args, maskOf(type, args));
    });
    this.#experts = args.num_experts;
  }

  /** Stacks the experts, which the original checkpoints have one by one. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = super.sanitize(weights);
    for (const layer of this.layers.keys()) {
      const mlp = `model.layers.${layer}.mlp`;
      stackExperts(sanitized, { count: this.#experts, from: `${mlp}.experts`, to: `${mlp}.switch_mlp` });
    }
    return sanitized;
  }
}

/** The router decides which experts are read: it stays at 8 bits. */
export const quantize = (path: string) => (path.endsWith("mlp.gate") ? { groupSize: 64, bits: 8 } : undefined);

export const awq = expertsAwq("mlp");

/** How layers of a type turn. */
const rotationOf = ({ rope_parameters }: Args, layerType: AttentionType) =>
  ropeOptions({ rope_parameters }, { base: 10_000, layerType });

export const gguf = decoder("mellum", {
  names: new TensorNames({ ...plainLayer, ...expertLayer("mlp") }),
  windows: { period: 4 },
  integers: {
    expert_count: "num_experts",
    expert_used_count: "num_experts_per_tok",
    expert_feed_forward_length: "moe_intermediate_size",
  },
  only: { norm_topk_prob: true, tie_word_embeddings: false },
  common(config) {
    const { base, scaling } = rotationOf(config as Args, "full_attention");
    return { rope_theta: base, rope_scaling: scaling, rope_parameters: undefined };
  },
  read(_, { rope_theta, rope_scaling, layer_types, sliding_window, num_hidden_layers, max_position_embeddings }) {
    return {
      rope_theta: undefined,
      rope_scaling: undefined,
      rope_parameters: {
        full_attention: { rope_type: "default", ...(rope_scaling as object | undefined), rope_theta },
        sliding_attention: { rope_type: "default", rope_theta },
      },
      sliding_window: sliding_window ?? max_position_embeddings,
      layer_types: layer_types ?? Array.from({ length: num_hidden_layers as number }, () => "full_attention"),
    };
  },
  write(_, config) {
    const [full, sliding] = (["full_attention", "sliding_attention"] as const).map((type) =>
      rotationOf(config as Args, type),
    );
    if (sliding!.base !== full!.base) noPlace('a "rope_theta" of sliding layers alone');
    const type = sliding!.scaling?.rope_type ?? sliding!.scaling?.type ?? "default";
    if (type !== "default") noPlace("a stretched rotation of sliding layers");
    return {};
  },
});
