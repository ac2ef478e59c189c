/**
 * Gemma 2: norms before and after each sublayer, zero-centered; scaled embeddings; GeGLU; capped scores and logits; every
 * other layer slides.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  type AttentionLayers,
  attention,
  type DecoderLayer,
  type GatedLayers,
  GatedMLP,
  type GatedMLPOptions,
  geglu,
  joinHeads,
  type KeyValueCache,
  layerRows,
  layerToken,
  type Mask,
  type MaskRule,
  Module,
  projectHeads,
  type Residual,
  ZeroCenteredRMSNorm,
} from "../nn";
import { type AttentionType, checkHeads, checkLayerTypes, denseFields, maskOf, size, slidingFields } from "./args";
import { denseAwq } from "./awq-facts";
import { decoder } from "./gguf/decoder";
import { sandwichLayer, TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { CausalLM } from "./language-model";
import * as llama from "./llama";

export const Args = z
  .object({
    ...denseFields,
    ...slidingFields,
    head_dim: size,
    num_key_value_heads: size,
    attn_logit_softcapping: z.number().positive().default(50),
    final_logit_softcapping: z.number().positive().default(30),
    query_pre_attn_scalar: z.number().positive().default(144),
  })
  .superRefine(checkHeads)
  .superRefine(checkLayerTypes);

type Args = z.infer<typeof Args>;

class Attention extends llama.Attention {
  override readonly scale: number;
  readonly cap: number;

  constructor(args: Args) {
    super({ ...args, attention_bias: false });
    this.scale = args.query_pre_attn_scalar ** -0.5;
    this.cap = args.attn_logit_softcapping;
  }

  protected override attend(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const [q, k, v] = projectHeads(x, [this.q_proj, this.k_proj, this.v_proj], this, cache?.offset);
    return joinHeads(attention(q, k, v, { scale: this.scale, mask, cache, cap: this.cap }));
  }
}

interface SandwichArgs {
  hidden_size: number;
  intermediate_size: number;
  rms_norm_eps: number;
  /** Of the norms behind the sublayers, where it is another. */
  post_norm_eps?: number;
}

/** x + norm(attention(norm(x))), then h + norm(mlp(norm(h))). */
export class SandwichBlock extends Module implements DecoderLayer {
  mlp: GatedMLP;
  input_layernorm: ZeroCenteredRMSNorm;
  post_attention_layernorm: ZeroCenteredRMSNorm;
  pre_feedforward_layernorm: ZeroCenteredRMSNorm;
  post_feedforward_layernorm: ZeroCenteredRMSNorm;

  constructor(
    readonly self_attn: llama.Attention,
    { hidden_size: D, intermediate_size, rms_norm_eps: eps, post_norm_eps: postEps = eps }: SandwichArgs,
    readonly mask?: MaskRule,
    mlp: GatedMLPOptions = { activation: geglu },
  ) {
    super();
    this.mlp = new GatedMLP(D, intermediate_size, mlp);
    this.input_layernorm = new ZeroCenteredRMSNorm(D, eps);
    this.post_attention_layernorm = new ZeroCenteredRMSNorm(D, postEps);
    this.pre_feedforward_layernorm = new ZeroCenteredRMSNorm(D, eps);
    this.post_feedforward_layernorm = new ZeroCenteredRMSNorm(D, postEps);
  }

  get plainAttention(): AttentionLayers | null {
    return this.self_attn.plain;
  }

  get plainFeedForward(): GatedLayers | null {
    return this.mlp.plain;
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const whole = this.addsPlainly(x) && (layerToken(x, this, mask, cache) ?? layerRows(x, this, mask, cache));
    if (whole) return whole;
    const attended = this.self_attn.forward(x.branch(this.input_layernorm), mask, cache);
    const h = this.add(x, this.post_attention_layernorm.forward(attended));
    const fed = this.mlp.forward(h.branch(this.pre_feedforward_layernorm));
    return this.add(h, this.post_feedforward_layernorm.forward(fed));
  }

  protected add(x: Residual, delta: Tensor): Residual {
    return x.plus(delta);
  }

  /** Whether `add` rounds as any addition does. */
  protected addsPlainly(_: Residual): boolean {
    return true;
  }
}

function typeOf(
  { layer_types, sliding_window }: Pick<Args, "layer_types" | "sliding_window">,
  index: number,
): AttentionType {
  return layer_types?.[index] ?? (sliding_window && index % 2 === 0 ? "sliding_attention" : "full_attention");
}

export class Model extends CausalLM {
  constructor(args: Args) {
    const cap = args.final_logit_softcapping;
    super(
      { ...args, tie_word_embeddings: true },
      (index) => new SandwichBlock(new Attention(args), args, maskOf(typeOf(args, index), args)),
      {
        norm: (dims, eps) => new ZeroCenteredRMSNorm(dims, eps),
        embeddingScale: Math.sqrt(args.hidden_size),
        adjustLogits: (logits) => logits.divide(cap).tanh().multiply(cap),
      },
    );
  }
}

export const awq = denseAwq({ before: "pre_feedforward_layernorm" });

/** Layers of the 27B: the one size whose attention is not scaled by its heads' width. llama.cpp knows it, and takes no other scale. */
const largest = 46;

export const gguf = decoder("gemma2", {
  names: new TensorNames(sandwichLayer),
  normOffset: 1,
  windows: { period: 2, typeOf: (args, index) => typeOf(args as unknown as Args, index) },
  floats: { attn_logit_softcapping: "attn_logit_softcapping", final_logit_softcapping: "final_logit_softcapping" },
  read(file, common) {
    const { hidden_size: width, num_attention_heads: heads, head_dim: dims } = common as unknown as Args;
    return { query_pre_attn_scalar: file.number("block_count") === largest ? width / heads : dims };
  },
  write(settings) {
    const { num_hidden_layers: layers, hidden_size: width, num_attention_heads: heads, headDim } = settings;
    const expected = layers === largest ? width / heads : headDim;
    const scalar = settings.query_pre_attn_scalar;
    if (scalar !== expected) noPlace(`"query_pre_attn_scalar" ${scalar} (not ${expected})`);
    return {};
  },
});
