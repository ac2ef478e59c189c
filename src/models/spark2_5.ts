/**
 * Spark 2.5: queries, keys and values from one projection, a sigmoid gate on each head's result, and a feed-forward block by
 * GELU; three layers that slide to each layer that sees all, with rotary settings for each type.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  attention,
  GatedMLP,
  gelu,
  initializeRope,
  joinHeads,
  type KeyValueCache,
  type Layer,
  Linear,
  type Mask,
  Module,
  RMSNorm,
  type RotaryEmbedding,
  splitQueriesKeysValues,
} from "../nn";
import {
  AttentionType,
  checkHeads,
  checkLayerTypes,
  maskOf,
  RopeParameters,
  ropeOptions,
  size,
  trunkFields,
} from "./args";
import { type AwqFacts, downGroup, gatedGroup } from "./awq-facts";
import { Block, type SelfAttention } from "./llama";
import { NamedLM } from "./named-lm";

export const Args = z
  .object({
    ...trunkFields,
    rms_norm_eps: z.number().positive().default(1e-6),
    intermediate_size: size,
    num_attention_heads: size,
    num_key_value_heads: size,
    head_dim: size,
    sliding_window: size,
    rope_parameters: RopeParameters,
    layer_types: z.array(AttentionType).nullish(),
    max_position_embeddings: size.default(8192),
    attention_bias: z.boolean().default(false),
    mlp_bias: z.boolean().default(false),
    hidden_act: z.literal("gelu").default("gelu"),
    gate_attn_act_mode: z.literal("sigmoid").default("sigmoid"),
    headwise_attn_output_gate: z.literal(true).default(true),
  })
  .superRefine(checkHeads)
  .superRefine(checkLayerTypes);

type Args = z.infer<typeof Args>;

class Attention extends Module implements SelfAttention {
  q_k_v_proj: Layer;
  g_proj: Layer;
  out_proj: Layer;
  readonly rope: RotaryEmbedding;
  readonly heads: number;
  readonly kvHeads: number;
  readonly scale: number;

  constructor(args: Args, layerType: AttentionType) {
    super();
    const { hidden_size: D, num_attention_heads: heads, num_key_value_heads: kvHeads, attention_bias: bias } = args;
    const headDim = args.head_dim;
    this.q_k_v_proj = new Linear(D, (heads + 2 * kvHeads) * headDim, { bias });
    this.g_proj = new Linear(D, heads, { bias });
    this.out_proj = new Linear(heads * headDim, D, { bias });
    const { base, scaling } = ropeOptions({ rope_parameters: args.rope_parameters }, { base: 10_000, layerType });
    const dims = Math.trunc(headDim * (scaling?.partial_rotary_factor ?? 1));
    this.rope = initializeRope({ dims, base, scaling, maxPositions: args.max_position_embeddings });
    this.heads = heads;
    this.kvHeads = kvHeads;
    this.scale = headDim ** -0.5;
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const [q, k, v] = splitQueriesKeysValues(this.q_k_v_proj.forward(x), this, cache?.offset);
    const out = attention(q, k, v, { scale: this.scale, mask, cache });
    // One for each token and head.
    const gate = this.g_proj.forward(x).astype("float32").sigmoid().astype(out.dtype);
    return this.out_proj.forward(joinHeads(out.multiply(gate.swapaxes(1, 2).expandDims(-1))));
  }
}

const usualTypes = ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"] as const;

export class Model extends NamedLM {
  constructor(args: Args) {
    const { hidden_size: D, rms_norm_eps: eps, vocab_size: vocab, num_hidden_layers: layers, mlp_bias: bias } = args;
    const activation = (gate: Tensor, x: Tensor) => gelu(gate).multiply(x);
    super(
      { dims: D, vocab, layers, tied: args.tie_word_embeddings },
      { trunk: "model", embedding: "embedding", layers: "layers", norm: "norm", head: ".lm_head" },
      (index) => {
        const type = args.layer_types?.[index] ?? usualTypes[index % usualTypes.length]!;
        const mlp = new GatedMLP(D, args.intermediate_size, { bias, activation, downLast: true });
        return new Block(new Attention(args, type), mlp, args, maskOf(type, args));
      },
      new RMSNorm(D, eps),
    );
  }

  /** Some conversions call the embedding as most models do. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const renamed = [...weights].map(([name, weight]) => [
      name.replace(/^model\.embed_tokens\./, "model.embedding."),
      weight,
    ]);
    return super.sanitize(new Map(renamed as [string, Tensor][]));
  }
}

/** The gates of heads are few, and small. */
export const quantize = (path: string) => (path.endsWith("self_attn.g_proj") ? "leave" : undefined);

export const awq: AwqFacts = {
  noClip: ["q_k_v_proj"],
  groups: [
    { before: "input_layernorm", layers: ["self_attn.q_k_v_proj", "self_attn.g_proj"], part: "self_attn" },
    downGroup("mlp"),
    gatedGroup("post_attention_layernorm"),
  ],
};
