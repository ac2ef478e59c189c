/** Phi-3.5-MoE: Mixtral with LayerNorm, biases on attention and head, LongRoPE, and SparseMixer as its router. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  type DecoderLayer,
  type KeyValueCache,
  type Layer,
  LayerNorm,
  Linear,
  type Mask,
  type MaskRule,
  Module,
  mixExperts,
  type Residual,
  type RopeOptions,
  SwitchGLU,
  slidingWindow,
  sparseMixer,
  stackExperts,
} from "../nn";
import { checkExperts, checkHeads, denseFields, ropeOf, size } from "./args";
import { blockAwq } from "./awq-facts";
import { decoder, expertCounts } from "./gguf/decoder";
import { expertLayer, fusedExperts, plainLayer, TensorNames } from "./gguf/names";
import { CausalLM } from "./language-model";
import { Attention } from "./llama";

export const Args = z
  .object({
    ...denseFields,
    vocab_size: size.default(32_064),
    hidden_size: size.default(4096),
    intermediate_size: size.default(6400),
    num_hidden_layers: size.default(32),
    num_attention_heads: size.default(32),
    num_key_value_heads: size.default(8),
    max_position_embeddings: size.default(131_072),
    original_max_position_embeddings: size.nullish(),
    rms_norm_eps: z.number().positive().default(1e-6),
    attention_bias: z.boolean().default(true),
    lm_head_bias: z.boolean().default(true),
    tie_word_embeddings: z.boolean().default(false),
    sliding_window: size.nullish(),
    num_local_experts: size.default(16),
    num_experts_per_tok: size.default(2),
    router_jitter_noise: z.number().nonnegative().default(0.01),
  })
  .superRefine(checkHeads)
  .superRefine(checkExperts("num_experts_per_tok", "num_local_experts"));

type Args = z.infer<typeof Args>;

function phiRope(args: Args): RopeOptions {
  const { scaling, ...rope } = ropeOf(args);
  if (!scaling?.long_factor) return { ...rope, scaling };
  const original = args.original_max_position_embeddings ?? scaling.original_max_position_embeddings ?? 4096;
  return { ...rope, scaling: { ...scaling, type: "longrope", original_max_position_embeddings: original } };
}

class SparseMoeBlock extends Module {
  gate: Layer;
  switch_mlp: SwitchGLU;
  readonly expertsPerToken: number;
  readonly jitter: number;

  constructor(args: Args) {
    super();
    this.gate = new Linear(args.hidden_size, args.num_local_experts, { bias: false });
    this.switch_mlp = new SwitchGLU(args.hidden_size, args.intermediate_size, args.num_local_experts);
    this.expertsPerToken = args.num_experts_per_tok;
    this.jitter = args.router_jitter_noise;
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    return mixExperts(x, this.switch_mlp, sparseMixer(this.gate.forward(x), this.expertsPerToken, this));
  }
}

class Block extends Module implements DecoderLayer {
  self_attn: Attention;
  block_sparse_moe: SparseMoeBlock;
  input_layernorm: LayerNorm;
  post_attention_layernorm: LayerNorm;
  readonly mask?: MaskRule;

  constructor(args: Args) {
    super();
    const { hidden_size: D, rms_norm_eps: eps, sliding_window: window } = args;
    this.self_attn = new Attention(args, { rope: phiRope(args) });
    this.block_sparse_moe = new SparseMoeBlock(args);
    this.input_layernorm = new LayerNorm(D, eps);
    this.post_attention_layernorm = new LayerNorm(D, eps);
    // The published window is as long as the context, and hides nothing.
    if (window && window < args.max_position_embeddings) this.mask = slidingWindow(window);
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
    super(args, () => new Block(args), {
      norm: (dims, eps) => new LayerNorm(dims, eps),
      headBias: args.lm_head_bias,
    });
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

export const awq = blockAwq({ mlp: "block_sparse_moe" });

/** llama.cpp computes it with RMSNorm, and a softmax of what it chooses as weights: its answers are others. */
export const gguf = decoder("phimoe", {
  names: new TensorNames(
    { ...plainLayer, ...expertLayer("block_sparse_moe") },
    { halves: fusedExperts("block_sparse_moe") },
  ),
  hasWindows: true,
  integers: expertCounts,
  only: { attention_bias: true, lm_head_bias: true, tie_word_embeddings: false, router_jitter_noise: 0.01 },
  read: (file, { rope_scaling }) => ({
    original_max_position_embeddings: (rope_scaling as { original_max_position_embeddings?: number } | undefined)
      ?.original_max_position_embeddings,
    sliding_window: file.number("attention.sliding_window"),
  }),
});
