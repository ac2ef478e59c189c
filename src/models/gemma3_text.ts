/**
 * Gemma 3 (text): norms before and after each sublayer, zero-centered; norms on queries and keys; scaled embeddings;
 * GeGLU; five layers of sliding-window attention, with a rotary base of their own, to each layer of full attention.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  attention,
  Decoder,
  type DecoderLayer,
  Embedding,
  GatedMLP,
  geglu,
  initializeRope,
  joinHeads,
  type KeyValueCache,
  Linear,
  type Mask,
  Module,
  projectHeads,
  RopeScaling,
  type RotaryEmbedding,
  ZeroCenteredRMSNorm,
} from "../nn";
import { checkHeads, size } from "./args";
import { CausalLM } from "./language-model";

export const Args = z
  .object({
    hidden_size: size.default(1152),
    num_hidden_layers: size.default(26),
    intermediate_size: size.default(6912),
    num_attention_heads: size.default(4),
    head_dim: size.default(256),
    rms_norm_eps: z.number().positive().default(1e-6),
    vocab_size: size.default(262_144),
    num_key_value_heads: size.default(1),
    rope_theta: z.number().positive().default(1_000_000),
    rope_local_base_freq: z.number().positive().default(10_000),
    query_pre_attn_scalar: z.number().positive().default(256),
    sliding_window: size.default(512),
    sliding_window_pattern: size.default(6),
    max_position_embeddings: size.default(32_768),
    rope_scaling: RopeScaling.nullish(),
  })
  .superRefine(checkHeads);

type Args = z.infer<typeof Args>;

class Attention extends Module {
  q_proj: Linear;
  k_proj: Linear;
  v_proj: Linear;
  o_proj: Linear;
  q_norm: ZeroCenteredRMSNorm;
  k_norm: ZeroCenteredRMSNorm;
  rope: RotaryEmbedding;
  readonly heads: number;
  readonly kvHeads: number;
  readonly scale: number;

  constructor(args: Args, sliding: boolean) {
    super();
    const { hidden_size: D, num_attention_heads: heads, num_key_value_heads: kvHeads, head_dim: headDim } = args;
    this.q_proj = new Linear(D, heads * headDim, { bias: false });
    this.k_proj = new Linear(D, kvHeads * headDim, { bias: false });
    this.v_proj = new Linear(D, kvHeads * headDim, { bias: false });
    this.o_proj = new Linear(heads * headDim, D, { bias: false });
    this.q_norm = new ZeroCenteredRMSNorm(headDim, args.rms_norm_eps);
    this.k_norm = new ZeroCenteredRMSNorm(headDim, args.rms_norm_eps);
    this.rope = sliding
      ? initializeRope({ dims: headDim, base: args.rope_local_base_freq })
      : initializeRope({
          dims: headDim,
          base: args.rope_theta,
          scaling: args.rope_scaling,
          maxPositions: args.max_position_embeddings,
        });
    this.heads = heads;
    this.kvHeads = kvHeads;
    this.scale = args.query_pre_attn_scalar ** -0.5;
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const [q, k, v] = projectHeads(x, [this.q_proj, this.k_proj, this.v_proj], this, cache?.offset);
    const out = attention(q, k, v, { scale: this.scale, mask, cache });
    return this.o_proj.forward(joinHeads(out));
  }
}

/** x + y. The sum of float16 residuals outgrows the type, so it is made in float32 and clipped. */
const addResidual = mx.compile(
  (x: Tensor, y: Tensor): Tensor => {
    if (x.dtype !== "float16") return x.add(y);
    const { min, max } = mx.finfo("float16");
    return mx.clip(x.astype("float32").add(y.astype("float32")), min, max).astype("float16");
  },
  { shapeless: true },
);

class Block extends Module implements DecoderLayer {
  self_attn: Attention;
  mlp: GatedMLP;
  input_layernorm: ZeroCenteredRMSNorm;
  post_attention_layernorm: ZeroCenteredRMSNorm;
  pre_feedforward_layernorm: ZeroCenteredRMSNorm;
  post_feedforward_layernorm: ZeroCenteredRMSNorm;
  readonly window: number | null;

  constructor(args: Args, sliding: boolean) {
    super();
    const { hidden_size: D, rms_norm_eps: eps } = args;
    this.self_attn = new Attention(args, sliding);
    this.mlp = new GatedMLP(D, args.intermediate_size, { activation: geglu });
    this.input_layernorm = new ZeroCenteredRMSNorm(D, eps);
    this.post_attention_layernorm = new ZeroCenteredRMSNorm(D, eps);
    this.pre_feedforward_layernorm = new ZeroCenteredRMSNorm(D, eps);
    this.post_feedforward_layernorm = new ZeroCenteredRMSNorm(D, eps);
    this.window = sliding ? args.sliding_window : null;
  }

  forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const attended = this.self_attn.forward(this.input_layernorm.forward(x), mask, cache);
    const h = addResidual(x, this.post_attention_layernorm.forward(attended));
    const fed = this.mlp.forward(this.pre_feedforward_layernorm.forward(h));
    return addResidual(h, this.post_feedforward_layernorm.forward(fed));
  }
}

export class Model extends CausalLM {
  constructor(args: Args) {
    const { hidden_size: D, vocab_size: V, sliding_window_pattern: pattern } = args;
    const block = (_: unknown, i: number) => new Block(args, (i + 1) % pattern !== 0);
    super(
      new Decoder(
        new Embedding(V, D),
        Array.from({ length: args.num_hidden_layers }, block),
        new ZeroCenteredRMSNorm(D, args.rms_norm_eps),
        Math.sqrt(D),
      ),
      new Linear(D, V, { bias: false }),
    );
  }

  /** The checkpoint, not the configuration, says whether the embedding is tied: then it has no head. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    if (!weights.has("lm_head.weight")) {
      this.lm_head?.dispose();
      this.lm_head = undefined;
    }
    return super.sanitize(weights);
  }
}
