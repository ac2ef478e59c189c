/** Qwen 3 VL's mixture of experts, its language model: that of Qwen 3, with experts that lie the other way round. */
import type { z } from "zod";
import type { Tensor } from "../mlx";
import { blockAwq } from "./awq-facts";
import { expertLayer, fusedExperts, plainLayer, TensorNames } from "./gguf/names";
import { sections } from "./gguf/sections";
import { NestedLM, nestedArgs } from "./nested";
import * as qwen3_moe from "./qwen3_moe";

export const Args = nestedArgs(qwen3_moe.Args);

export class Model extends NestedLM {
  readonly #dims: number;

  constructor(args: z.infer<typeof Args>) {
    super(new qwen3_moe.Model(args));
    this.#dims = args.hidden_size;
  }

  /**
   * The original checkpoints have experts as (E, K, N), those of gate and value as one; ours are (E, N, K), and two.
   * Transformers 5 reads both ways and saves the second.
   */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const liesAsOurs = (path: string) =>
      weights.get(`${path}.experts.down_proj`)?.dim(-2) === this.#dims &&
      weights.get(`${path}.experts.gate_up_proj`)?.dim(-1) === this.#dims;
    const asOurs = (path: string, weight: Tensor) => (liesAsOurs(path) ? weight : weight.swapaxes(-1, -2));
    const turned = new Map<string, Tensor>();
    for (const [name, weight] of weights) {
      const [path, part] = name.split(".experts.") as [string, string?];
      const to = `${path}.switch_mlp`;
      if (part === "gate_up_proj") {
        const [gate, up] = asOurs(path, weight).split(2, -2) as [Tensor, Tensor];
        turned.set(`${to}.gate_proj.weight`, gate).set(`${to}.up_proj.weight`, up);
      } else if (part === "down_proj") turned.set(`${to}.down_proj.weight`, asOurs(path, weight));
      else turned.set(name, weight);
    }
    return super.sanitize(turned);
  }
}

export const { quantize } = qwen3_moe;

export const awq = blockAwq({ inner: "language_model" });

export const gguf = sections("qwen3vlmoe", {
  names: new TensorNames(
    { ...plainLayer, ...expertLayer("mlp") },
    { halves: fusedExperts("mlp"), prefix: "language_model." },
  ),
  integers: {
    expert_count: "num_experts",
    expert_used_count: "num_experts_per_tok",
    expert_feed_forward_length: "moe_intermediate_size",
  },
  only: { norm_topk_prob: true, decoder_sparse_step: 1, mlp_only_layers: [] },
});
