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
  size,
} from "./args";
import { expertsAwq } from "./awq-facts";
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
