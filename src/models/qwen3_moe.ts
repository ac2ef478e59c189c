/** Qwen 3 (mixture of experts): Qwen 3 whose MLPs, all or every few, are experts. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import { GatedMLP, type Layer, SparseMLP, stackExperts } from "../nn";
import {
  checkExperts,
  checkHeads,
  checkLayerTypes,
  denseFields,
  layerType,
  maskOf,
  ropeOf,
  size,
  slidingFields,
} from "./args";
import { blockAwq } from "./awq-facts";
import { decoder } from "./gguf/decoder";
import { expertLayer, fusedExperts, plainLayer, TensorNames } from "./gguf/names";
import { CausalLM } from "./language-model";
import { Block } from "./llama";
import { Attention } from "./qwen3";

export const Args = z
  .object({
    ...denseFields,
    ...slidingFields,
    num_key_value_heads: size,
    head_dim: size,
    max_position_embeddings: size,
    tie_word_embeddings: z.boolean(),
    num_experts: z.int().nonnegative(),
    num_experts_per_tok: size,
    /** Every how many layers the MLP is one of experts. */
    decoder_sparse_step: size,
    mlp_only_layers: z.array(z.int()),
    moe_intermediate_size: size,
    norm_topk_prob: z.boolean(),
  })
  .superRefine(checkHeads)
  .superRefine(checkLayerTypes)
  .superRefine(checkExperts("num_experts_per_tok", "num_experts"));

type Args = z.infer<typeof Args>;

function mlpOf(args: Args, index: number): Layer {
  const { hidden_size: dims, num_experts: experts, decoder_sparse_step: step } = args;
  const isSparse = experts > 0 && (index + 1) % step === 0 && !args.mlp_only_layers.includes(index);
  if (!isSparse) return new GatedMLP(dims, args.intermediate_size);
  const { moe_intermediate_size: hiddenDims, num_experts_per_tok: expertsPerToken, norm_topk_prob: normalize } = args;
  return new SparseMLP({ dims, hiddenDims, experts, expertsPerToken, normalize });
}

export class Model extends CausalLM {
  readonly experts: number;

  constructor(args: Args) {
    super(args, (index) => {
      const type = layerType(args, index);
      const rope = ropeOf({ ...args, rope_traditional: false }, { layerType: type });
      return new Block(new Attention(args, { rope }), mlpOf(args, index), args, maskOf(type, args));
    });
    this.experts = args.num_experts;
  }

  /** Stacks the experts, which the original checkpoints have one by one. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = super.sanitize(weights);
    for (const layer of this.layers.keys()) {
      const mlp = `model.layers.${layer}.mlp`;
      stackExperts(sanitized, { count: this.experts, from: `${mlp}.experts`, to: `${mlp}.switch_mlp` });
    }
    return sanitized;
  }
}

/** The router decides which experts are read: it stays at 8 bits. */
export const quantize = (path: string) => (path.endsWith("mlp.gate") ? { groupSize: 64, bits: 8 } : undefined);

export const awq = blockAwq();

export const gguf = decoder("qwen3moe", {
  names: new TensorNames({ ...plainLayer, ...expertLayer("mlp") }, { halves: fusedExperts("mlp") }),
  integers: {
    expert_count: "num_experts",
    expert_used_count: "num_experts_per_tok",
    expert_feed_forward_length: "moe_intermediate_size",
  },
  // llama.cpp has experts in every layer, and weights that sum to one.
  only: { norm_topk_prob: true, decoder_sparse_step: 1, mlp_only_layers: [] },
});
