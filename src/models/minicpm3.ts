/** MiniCPM 3: MiniCPM's factors around latent attention that turns by LongRoPE. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import { GatedMLP, initializeRope } from "../nn";
import { attentionFields, ropeOptions, size, trunkFields } from "./args";
import { blockAwq } from "./awq-facts";
import { UnpackedLatentAttention } from "./deepseek_v2";
import { decoder } from "./gguf/decoder";
import { latentDecoderLayer } from "./gguf/deepseek2";
import { u32 } from "./gguf/facts";
import { TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { ScaledBlock } from "./granite";
import { CausalLM } from "./language-model";
import { withHead } from "./minicpm";

const { rope_theta, rope_scaling, rope_parameters, attention_bias } = attentionFields;

export const Args = z
  .object({
    ...trunkFields,
    dim_model_base: size,
    intermediate_size: size,
    num_attention_heads: size,
    q_lora_rank: size,
    qk_nope_head_dim: size,
    qk_rope_head_dim: size,
    kv_lora_rank: size,
    scale_depth: z.number(),
    scale_emb: z.number().positive(),
    max_position_embeddings: size,
    ...{ rope_theta, rope_scaling, rope_parameters, attention_bias },
    tie_word_embeddings: z.boolean().default(false),
  })
  .superRefine(({ hidden_size: dims, num_attention_heads: heads }, context) => {
    if (dims % heads === 0) return;
    const message = `is ${heads}, but must divide "hidden_size" (${dims})`;
    context.addIssue({ code: "custom", path: ["num_attention_heads"], message });
  });

type Args = z.infer<typeof Args>;

/** Of the norms within attention. */
const latentEps = 1e-5;

function attentionOf(args: Args): UnpackedLatentAttention {
  const { hidden_size: dims, num_attention_heads: heads, qk_rope_head_dim: rotatedDims } = args;
  const { base, scaling } = ropeOptions(args, { base: 1_000_000 });
  const plainDims = args.qk_nope_head_dim;
  const sizes = {
    ...{ dims, heads, plainDims, rotatedDims, valueDims: dims / heads, bias: args.attention_bias },
    ...{ queryRank: args.q_lora_rank, rank: args.kv_lora_rank, eps: latentEps },
  };
  const stretch = {
    ...scaling,
    type: "longrope",
    long_factor: scaling?.long_factor ?? 1,
    original_max_position_embeddings: scaling?.original_max_position_embeddings ?? 4096,
  };
  const maxPositions = args.max_position_embeddings;
  const rope = initializeRope({ dims: rotatedDims, base, scaling: stretch, maxPositions });
  return new UnpackedLatentAttention(sizes, { rope, scale: (plainDims + rotatedDims) ** -0.5 });
}

export class Model extends CausalLM {
  constructor(args: Args) {
    const { hidden_size: D, intermediate_size, tie_word_embeddings: isTied } = args;
    const factor = args.scale_depth / Math.sqrt(args.num_hidden_layers);
    const mlp = () => new GatedMLP(D, intermediate_size, { downLast: true });
    super(args, () => new ScaledBlock(attentionOf(args), mlp(), args, factor), {
      embeddingScale: args.scale_emb,
      // As the reference has it, not ahead of a tied head.
      adjustHidden: (h) => (isTied ? h : h.divide(D / args.dim_model_base)),
    });
  }

  /** As MiniCPM's: GGUF files have no head where it is the embedding, and divide ahead of it all the same. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = super.sanitize(weights);
    return this.lm_head ? withHead(sanitized) : sanitized;
  }
}

export const awq = blockAwq();

export const gguf = decoder("minicpm3", {
  names: new TensorNames(latentDecoderLayer),
  ropeBase: 1_000_000,
  turning: (settings) => (settings as unknown as Args).qk_rope_head_dim,
  // As published: files have no fields for them. Norms within attention have the epsilon of the others.
  only: { dim_model_base: 256, scale_depth: 1.4, scale_emb: 12, rms_norm_eps: latentEps, tie_word_embeddings: false },
  integers: { "attention.q_lora_rank": "q_lora_rank", "attention.kv_lora_rank": "kv_lora_rank" },
  read(file) {
    const turning = file.need("rope.dimension_count");
    const width = file.need("attention.key_length");
    return { qk_rope_head_dim: turning, qk_nope_head_dim: width - turning, head_dim: undefined };
  },
  write(settings) {
    const args = settings as unknown as Args;
    const { scaling } = ropeOptions(args, { base: 1_000_000 });
    if (args.attention_bias) noPlace('"attention_bias"');
    if (!Array.isArray(scaling?.short_factor)) noPlace("a rotation without LongRoPE's factors");
    return {
      vocab_size: u32(args.vocab_size),
      "attention.head_count_kv": u32(args.num_attention_heads),
      "attention.key_length": u32(args.qk_nope_head_dim + args.qk_rope_head_dim),
      "attention.value_length": u32(args.hidden_size / args.num_attention_heads),
    };
  },
});
