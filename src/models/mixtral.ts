/** Mixtral: Llama with the MLP replaced by experts, of which a router picks a few for each token. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  type DecoderLayer,
  type KeyValueCache,
  type Layer,
  Linear,
  type Mask,
  Module,
  mixExperts,
  type Residual,
  RMSNorm,
  SwitchGLU,
  softmaxOfHighest,
  stackExperts,
} from "../nn";
import { checkExperts, checkHeads, denseFields, ropeOf, size } from "./args";
import { expertsAwq } from "./awq-facts";
import { decoder, expertCounts } from "./gguf/decoder";
import { expertLayer, plainLayer, TensorNames } from "./gguf/names";
import { CausalLM } from "./language-model";
import { Attention } from "./llama";

export const Args = z
  .object({
    ...denseFields,
    vocab_size: size.default(32_000),
    hidden_size: size.default(4096),
    intermediate_size: size.default(14_336),
    num_hidden_layers: size.default(32),
    num_attention_heads: size.default(32),
    num_experts_per_tok: size.default(2),
    num_key_value_heads: size.nullable().default(8),
    num_local_experts: size.default(8),
    rms_norm_eps: z.number().positive().default(1e-5),
    tie_word_embeddings: z.boolean().default(false),
  })
  .superRefine(checkHeads)
  .superRefine(checkExperts("num_experts_per_tok", "num_local_experts"));

type Args = z.infer<typeof Args>;

class SparseMoeBlock extends Module {
  gate: Layer;
  switch_mlp: SwitchGLU;
  readonly expertsPerToken: number;

  constructor(args: Args) {
    super();
    this.gate = new Linear(args.hidden_size, args.num_local_experts, { bias: false });
    this.switch_mlp = new SwitchGLU(args.hidden_size, args.intermediate_size, args.num_local_experts);
    this.expertsPerToken = args.num_experts_per_tok;
  }

  /** x (B, T, D) → (B, T, D): the chosen experts' results, weighted by a softmax over their gates. */
  forward(x: Tensor): Tensor {
    return mixExperts(x, this.switch_mlp, softmaxOfHighest(this.gate.forward(x), this.expertsPerToken));
  }
}

class Block extends Module implements DecoderLayer {
  self_attn: Attention;
  block_sparse_moe: SparseMoeBlock;
  input_layernorm: RMSNorm;
  post_attention_layernorm: RMSNorm;

  constructor(args: Args) {
    super();
    const { hidden_size: D, rms_norm_eps: eps } = args;
    // Positions are never stretched, whatever the configuration says.
    const rope = { ...ropeOf(args, { base: 1e6 }), scaling: null };
    this.self_attn = new Attention({ ...args, attention_bias: false }, { rope });
    this.block_sparse_moe = new SparseMoeBlock(args);
    this.input_layernorm = new RMSNorm(D, eps);
    this.post_attention_layernorm = new RMSNorm(D, eps);
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const h = x.plus(this.self_attn.forward(x.branch(this.input_layernorm), mask, cache));
    return h.plus(this.block_sparse_moe.forward(h.branch(this.post_attention_layernorm)));
  }
}

/** The names that checkpoints give the experts' projections, by ours. */
const names = { gate_proj: "w1", down_proj: "w2", up_proj: "w3" };

export class Model extends CausalLM {
  readonly experts: number;

  constructor(args: Args) {
    super(args, () => new Block(args));
    this.experts = args.num_local_experts;
  }

  /** Stacks the experts' weights, which the original checkpoints have one by one. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = super.sanitize(weights);
    for (const layer of this.layers.keys()) {
      const moe = `model.layers.${layer}.block_sparse_moe`;
      stackExperts(sanitized, { count: this.experts, from: `${moe}.experts`, to: `${moe}.switch_mlp`, names });
    }
    return sanitized;
  }
}

export const awq = expertsAwq("block_sparse_moe");

export const gguf = decoder("llama", {
  matches: (file) => (file.number("expert_count") ?? 0) > 0,
  pairsRows: true,
  ropeBase: 1e6,
  stretches: false,
  integers: expertCounts,
  names: new TensorNames(
    { ...plainLayer, ...expertLayer("block_sparse_moe") },
    { experts: { path: "block_sparse_moe.experts", parts: { ffn_gate: "w1", ffn_down: "w2", ffn_up: "w3" } } },
  ),
});
