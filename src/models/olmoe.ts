/** OLMoE: OLMo 2's attention ahead of experts by a softmax, in Llama's blocks. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { highest, type Layer, Linear, Module, mixExperts, SwitchGLU, stackExperts } from "../nn";
import { checkExperts, checkHeads, denseFields, ropeOf, size } from "./args";
import { blockAwq } from "./awq-facts";
import { decoder } from "./gguf/decoder";
import { expertLayer, fusedExperts, plainLayer, TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { CausalLM } from "./language-model";
import { Block } from "./llama";
import { Attention } from "./olmo2";

export const Args = z
  .object({
    ...denseFields,
    num_experts: size,
    num_experts_per_tok: size,
    norm_topk_prob: z.boolean().default(false),
    mlp_bias: z.boolean().default(false),
  })
  .superRefine(checkHeads)
  .superRefine(checkExperts("num_experts_per_tok", "num_experts"));

type Args = z.infer<typeof Args>;

class MoE extends Module {
  gate: Layer;
  switch_mlp: SwitchGLU;

  constructor(readonly args: Args) {
    super();
    const { hidden_size: dims, intermediate_size: hidden, num_experts: experts, mlp_bias: bias } = args;
    this.gate = new Linear(dims, experts, { bias: false });
    this.switch_mlp = new SwitchGLU(dims, hidden, experts, { bias });
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    const { num_experts_per_tok: k, norm_topk_prob: normalize } = this.args;
    const probabilities = mx.softmax(this.gate.forward(x), { axis: -1, precise: true });
    const experts = highest(probabilities, k);
    const chosen = probabilities.takeAlongAxis(experts, -1);
    const weights = normalize ? chosen.divide(chosen.sum({ axis: -1, keepdims: true })) : chosen;
    return mixExperts(x, this.switch_mlp, { experts, weights });
  }
}

export class Model extends CausalLM {
  readonly #experts: number;

  constructor(args: Args) {
    super(args, () => new Block(new Attention(args, ropeOf(args)), new MoE(args), args));
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

export const awq = blockAwq();

export const gguf = decoder("olmoe", {
  names: new TensorNames({ ...plainLayer, ...expertLayer("mlp") }, { halves: fusedExperts("mlp") }),
  integers: { expert_count: "num_experts", expert_used_count: "num_experts_per_tok" },
  only: { norm_topk_prob: false, attention_bias: false, mlp_bias: false, tie_word_embeddings: false },
  write({ num_attention_heads: heads, num_key_value_heads: kvHeads }) {
    // llama.cpp's norms of queries and keys have one width.
    if (kvHeads && kvHeads !== heads) noPlace(`"num_key_value_heads" ${kvHeads} (not ${heads})`);
    return {};
  },
});
