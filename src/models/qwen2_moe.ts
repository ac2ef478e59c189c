/** Qwen 1.5 and 2 (mixtures of experts): Qwen 2 whose MLPs, all or every few, are experts beside a shared one. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import { GatedMLP, type Layer, SharedExpertMLP, stackExperts } from "../nn";
import { checkExperts, checkHeads, checkLayerTypes, denseFields, layerType, maskOf, size, slidingFields } from "./args";
import { blockAwq } from "./awq-facts";
import { decoder } from "./gguf/decoder";
import { expertLayer, plainLayer, sharedExpert, TensorNames } from "./gguf/names";
import { CausalLM } from "./language-model";
import { Block } from "./llama";
import { attentionOf } from "./qwen2";

export const Args = z
  .object({
    ...denseFields,
    ...slidingFields,
    tie_word_embeddings: z.boolean().default(false),
    num_experts: size,
    num_experts_per_tok: size,
    moe_intermediate_size: size,
    shared_expert_intermediate_size: size,
    norm_topk_prob: z.boolean().default(false),
    /** Every how many layers the MLP is one of experts. */
    decoder_sparse_step: size.default(1),
    mlp_only_layers: z.array(z.int()).nullish(),
  })
  .superRefine(checkHeads)
  .superRefine(checkLayerTypes)
  .superRefine(checkExperts("num_experts_per_tok", "num_experts"));

type Args = z.infer<typeof Args>;

function mlpOf(args: Args, index: number): Layer {
  const { hidden_size: dims, decoder_sparse_step: step } = args;
  const isSparse = (index + 1) % step === 0 && !args.mlp_only_layers?.includes(index);
  if (!isSparse) return new GatedMLP(dims, args.intermediate_size);
  return new SharedExpertMLP({
    dims,
    hiddenDims: args.moe_intermediate_size,
    sharedDims: args.shared_expert_intermediate_size,
    experts: args.num_experts,
    expertsPerToken: args.num_experts_per_tok,
    normalize: args.norm_topk_prob,
  });
}

export class Model extends CausalLM {
  readonly experts: number;

  constructor(args: Args) {
    super(args, (index) => {
      const type = layerType(args, index);
      return new Block(attentionOf(args, type), mlpOf(args, index), args, maskOf(type, args));
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

export const gguf = decoder("qwen2moe", {
  names: new TensorNames({
    ...plainLayer,
    ...expertLayer("mlp"),
    ...sharedExpert("mlp.shared_expert"),
    ffn_gate_inp_shexp: "mlp.shared_expert_gate",
  }),
  ropeBase: 1_000_000,
  integers: {
    expert_count: "num_experts",
    expert_used_count: "num_experts_per_tok",
    expert_feed_forward_length: "moe_intermediate_size",
    expert_shared_feed_forward_length: "shared_expert_intermediate_size",
  },
  only: { norm_topk_prob: false, decoder_sparse_step: 1, mlp_only_layers: [], tie_word_embeddings: false },
});

export const awq = blockAwq();
