/**
 * MiniMax M2: Llama that turns part of each head, with norms over all queries and all keys of a token, and experts by
 * sigmoids in every layer.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  type DecoderLayer,
  highestOfSigmoid,
  type KeyValueCache,
  type Layer,
  Linear,
  type Mask,
  Module,
  mixExperts,
  parameter,
  type Residual,
  RMSNorm,
  type RopeOptions,
  type Routing,
  SwitchGLU,
  stackExperts,
} from "../nn";
import { checkExperts, checkHeads, denseFields, headsOf, ropeOf, size } from "./args";
import { expertsAwq } from "./awq-facts";
import { decoder, expertCounts } from "./gguf/decoder";
import { gating } from "./gguf/deepseek2";
import { u32 } from "./gguf/facts";
import { expertLayer, fusedExperts, plainLayer, TensorNames } from "./gguf/names";
import { CausalLM } from "./language-model";
import * as llama from "./llama";
import * as olmo2 from "./olmo2";

export const Args = z
  .object({
    ...denseFields,
    num_key_value_heads: size,
    num_experts_per_tok: size,
    num_local_experts: size,
    rotary_dim: size.nullish(),
    scoring_func: z.literal("sigmoid").default("sigmoid"),
    use_qk_norm: z.boolean().default(true),
    tie_word_embeddings: z.boolean().default(false),
    /** MiniMax M1's linear attention has the same model type. */
    layer_types: z.array(z.literal("full_attention")).nullish(),
  })
  .superRefine(checkHeads)
  .superRefine(checkExperts("num_experts_per_tok", "num_local_experts"));

type Args = z.infer<typeof Args>;

function rotated(args: Args): RopeOptions {
  const share = args.rope_parameters?.partial_rotary_factor;
  const whole = headsOf(args).headDim;
  const dims = args.rotary_dim ?? (typeof share === "number" ? Math.trunc(whole * share) : whole);
  return { ...ropeOf({ ...args, rope_traditional: false }), dims };
}

function attentionOf(args: Args): llama.SelfAttention {
  const plain = { ...args, attention_bias: false };
  const rope = rotated(args);
  return args.use_qk_norm ? new olmo2.Attention(plain, rope) : new llama.Attention(plain, { rope });
}

class SparseMoeBlock extends Module {
  gate: Layer;
  switch_mlp: SwitchGLU;
  /** (experts) */
  e_score_correction_bias: Tensor;
  readonly expertsPerToken: number;

  constructor(args: Args) {
    super();
    const { hidden_size: dims, intermediate_size: hidden, num_local_experts: experts } = args;
    this.gate = new Linear(dims, experts, { bias: false });
    this.switch_mlp = new SwitchGLU(dims, hidden, experts);
    this.e_score_correction_bias = parameter(mx.zeros([experts]));
    this.expertsPerToken = args.num_experts_per_tok;
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    return mixExperts(x, this.switch_mlp, this.#route(x));
  }

  #route(x: Tensor): Routing {
    const logits = this.gate.forward(x.astype("float32"));
    const { experts, weights } = highestOfSigmoid(logits, this.e_score_correction_bias, this);
    return { experts, weights: weights.astype(x.dtype) };
  }
}

class Block extends Module implements DecoderLayer {
  self_attn: llama.SelfAttention;
  block_sparse_moe: SparseMoeBlock;
  input_layernorm: RMSNorm;
  post_attention_layernorm: RMSNorm;

  constructor(args: Args) {
    super();
    this.self_attn = attentionOf(args);
    this.block_sparse_moe = new SparseMoeBlock(args);
    this.input_layernorm = new RMSNorm(args.hidden_size, args.rms_norm_eps);
    this.post_attention_layernorm = new RMSNorm(args.hidden_size, args.rms_norm_eps);
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const h = x.plus(this.self_attn.forward(x.branch(this.input_layernorm), mask, cache));
    return h.plus(this.block_sparse_moe.forward(h.branch(this.post_attention_layernorm)));
  }
}

/** The names that checkpoints give the experts' projections, by ours. */
const names = { gate_proj: "w1", down_proj: "w2", up_proj: "w3" };

export class Model extends CausalLM {
  readonly #experts: number;

  constructor(args: Args) {
    super(args, () => new Block(args));
    this.#experts = args.num_local_experts;
  }

  /** Stacks the experts, which the original checkpoints have one by one. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = super.sanitize(weights);
    for (const layer of this.layers.keys()) {
      const moe = `model.layers.${layer}.block_sparse_moe`;
      stackExperts(sanitized, { count: this.#experts, from: `${moe}.experts`, to: `${moe}.switch_mlp`, names });
    }
    return sanitized;
  }
}

/** The router decides which experts are read: it stays at 8 bits. */
export const quantize = (path: string) =>
  path.endsWith("block_sparse_moe.gate") ? { groupSize: 64, bits: 8 } : undefined;

/** The bias of the routing is learned in float32, and small. */
export const keepsDtype = (path: string) => path.endsWith("e_score_correction_bias");

export const awq = expertsAwq("block_sparse_moe");

export const gguf = decoder("minimax-m2", {
  names: new TensorNames(
    { ...plainLayer, ...expertLayer("block_sparse_moe") },
    {
      parameters: { "exp_probs_b.bias": "block_sparse_moe.e_score_correction_bias" },
      halves: fusedExperts("block_sparse_moe"),
    },
  ),
  turning: (settings) => rotated(settings as unknown as Args).dims,
  integers: { ...expertCounts, expert_feed_forward_length: "intermediate_size" },
  only: { use_qk_norm: true, tie_word_embeddings: false },
  read: (file) => ({ rotary_dim: file.number("rope.dimension_count"), partial_rotary_factor: undefined }),
  write: () => ({ expert_gating_func: u32(gating.sigmoid) }),
});
