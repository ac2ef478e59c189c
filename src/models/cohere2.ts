/**
 * Command R7B and A: attention and MLP side by side on one norm, a LayerNorm; three layers that slide, rotating
 * neighbours, to each layer that sees all and has no positions; a factor on the logits.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  attention,
  type DecoderLayer,
  GatedMLP,
  joinHeads,
  type KeyValueCache,
  LayerNorm,
  type Mask,
  type MaskRule,
  Module,
  projectHeads,
  type Residual,
  type RopeOptions,
} from "../nn";
import { AttentionType, checkHeads, checkLayerTypes, maskOf, ropeFields, ropeOf, size } from "./args";
import { type AwqFacts, downGroup } from "./awq-facts";
import { decoder } from "./gguf/decoder";
import { CausalLM } from "./language-model";
import * as llama from "./llama";

export const Args = z
  .object({
    hidden_size: size.default(4096),
    head_dim: size.default(128),
    num_hidden_layers: size.default(32),
    intermediate_size: size.default(14_336),
    num_attention_heads: size.default(32),
    num_key_value_heads: size.default(8),
    ...ropeFields,
    vocab_size: size.default(256_000),
    layer_norm_eps: z.number().positive().default(1e-5),
    logit_scale: z.number().default(0.0625),
    attention_bias: z.boolean().default(false),
    layer_norm_bias: z.boolean().default(false),
    sliding_window: size.default(4096),
    sliding_window_pattern: size.default(4),
    layer_types: z.array(AttentionType).nullish(),
  })
  .superRefine(checkHeads)
  .superRefine(checkLayerTypes);

type Args = z.infer<typeof Args>;

export class Attention extends llama.Attention {
  constructor(args: llama.AttentionArgs, rope: RopeOptions | null) {
    super(args, { rope });
  }

  /** Scores of half precision outgrow it. */
  protected override attend(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const [q, k, v] = projectHeads(x, [this.q_proj, this.k_proj, this.v_proj], this, cache?.offset);
    const wide = q.dtype === "float16" ? q.astype("float32") : q;
    return joinHeads(attention(wide, k, v, { scale: this.scale, mask, cache }).astype(q.dtype));
  }
}

export interface ParallelSizes {
  hidden_size: number;
  intermediate_size: number;
  layer_norm_eps: number;
  layer_norm_bias: boolean;
}

/** x + attention(norm(x)) + mlp(norm(x)). */
export class ParallelBlock extends Module implements DecoderLayer {
  mlp: GatedMLP;
  input_layernorm: LayerNorm;

  constructor(
    readonly self_attn: llama.SelfAttention,
    { hidden_size: D, intermediate_size: hidden, layer_norm_eps: eps, layer_norm_bias: bias }: ParallelSizes,
    readonly mask?: MaskRule,
  ) {
    super();
    this.mlp = new GatedMLP(D, hidden);
    this.input_layernorm = new LayerNorm(D, eps, { bias });
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const normed = x.branch(this.input_layernorm);
    return x.plus(this.self_attn.forward(normed, mask, cache).add(this.mlp.forward(normed)));
  }
}

export class Model extends CausalLM {
  constructor(args: Args) {
    const { sliding_window_pattern: pattern, layer_norm_eps: eps, layer_norm_bias: bias } = args;
    const usual = (index: number) => ((index + 1) % pattern === 0 ? "full_attention" : "sliding_attention");
    const trunk = { ...args, rms_norm_eps: eps, tie_word_embeddings: true };
    const block = (index: number) => {
      const type = args.layer_types?.[index] ?? usual(index);
      const rotated = { ...args, rope_traditional: true };
      const rope = type === "sliding_attention" ? ropeOf(rotated, { base: 50_000, layerType: type }) : null;
      return new ParallelBlock(new Attention(rotated, rope), args, maskOf(type, args));
    };
    super(trunk, block, {
      norm: (dims) => new LayerNorm(dims, eps, { bias }),
      adjustLogits: (logits) => logits.multiply(args.logit_scale),
    });
  }
}

export const gguf = decoder("cohere2", {
  epsilon: ["attention.layer_norm_epsilon", "layer_norm_eps"],
  ropeBase: 50_000,
  windows: {
    period: 4,
    typeOf: (settings, index) => {
      const { layer_types: types, sliding_window_pattern: period } = settings as unknown as Args;
      return types?.[index] ?? ((index + 1) % period === 0 ? "full_attention" : "sliding_attention");
    },
  },
  floats: { logit_scale: "logit_scale" },
  only: { attention_bias: false, layer_norm_bias: false },
});

/** One norm is ahead of attention and of the feed-forward block. */
export const awq: AwqFacts = {
  noClip: ["q_proj", "k_proj"],
  groups: [
    {
      before: "input_layernorm",
      layers: ["mlp.gate_proj", "mlp.up_proj", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
      part: "mlp",
    },
    downGroup("mlp"),
  ],
};
