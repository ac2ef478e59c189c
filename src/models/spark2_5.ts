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
import { decoder, precise } from "./gguf/decoder";
import { f32, u32 } from "./gguf/facts";
import { TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
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

/** How layers of a type turn, and how many features of a head. */
function rotationOf({ rope_parameters, head_dim: headDim }: Args, layerType: AttentionType) {
  const { base, scaling } = ropeOptions({ rope_parameters }, { base: 10_000, layerType });
  return { dims: Math.trunc(headDim * (scaling?.partial_rotary_factor ?? 1)), base, scaling };
}

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
    this.rope = initializeRope({ ...rotationOf(args, layerType), maxPositions: args.max_position_embeddings });
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

const typeOf = ({ layer_types: types }: Args, index: number): AttentionType =>
  types?.[index] ?? usualTypes[index % usualTypes.length]!;

export class Model extends NamedLM {
  constructor(args: Args) {
    const { hidden_size: D, rms_norm_eps: eps, vocab_size: vocab, num_hidden_layers: layers, mlp_bias: bias } = args;
    const activation = (gate: Tensor, x: Tensor) => gelu(gate).multiply(x);
    super(
      { dims: D, vocab, layers, tied: args.tie_word_embeddings },
      { trunk: "model", embedding: "embedding", layers: "layers", norm: "norm", head: ".lm_head" },
      (index) => {
        const type = typeOf(args, index);
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

const layer = {
  attn_norm: "input_layernorm",
  attn_qkv: "self_attn.q_k_v_proj",
  attn_gate: "self_attn.g_proj",
  attn_output: "self_attn.out_proj",
  ffn_norm: "post_attention_layernorm",
  ffn_gate: "mlp.gate_proj",
  ffn_up: "mlp.up_proj",
  ffn_down: "mlp.down_proj",
};

const types = ["full_attention", "sliding_attention"] as const;

export const gguf = decoder("spark2_5", {
  names: new TensorNames(layer, { outer: { token_embd: "model.embedding" } }),
  windows: { period: 4, typeOf: (settings, index) => typeOf(settings as unknown as Args, index) },
  turning: (settings) => rotationOf(settings as unknown as Args, "full_attention").dims,
  only: { attention_bias: false, mlp_bias: false },
  common: (config) => ({ rope_theta: rotationOf(config as Args, "full_attention").base, rope_parameters: undefined }),
  read(file, { rope_theta, head_dim, layer_types }) {
    const width = head_dim as number;
    const dims = file.number("rope.dimension_count") ?? width;
    const sliding = file.number("rope.dimension_count_swa") ?? dims;
    const set = (base: unknown, turning: number) => ({
      rope_type: "default",
      rope_theta: base,
      partial_rotary_factor: turning / width,
    });
    return {
      layer_types: layer_types ?? file.wrong("no layer of it slides"),
      rope_theta: undefined,
      partial_rotary_factor: undefined,
      rope_parameters: {
        full_attention: set(rope_theta, dims),
        sliding_attention: set(precise(file.number("rope.freq_base_swa") ?? (rope_theta as number)), sliding),
      },
    };
  },
  write(_, config) {
    const [full, sliding] = types.map((type) => rotationOf(config as Args, type));
    for (const { scaling } of [full!, sliding!]) {
      const type = scaling?.rope_type ?? scaling?.type ?? "default";
      if (type !== "default") noPlace("a stretched rotation");
    }
    return {
      "rope.dimension_count": u32(full!.dims),
      "rope.dimension_count_swa": u32(sliding!.dims),
      "rope.freq_base_swa": f32(sliding!.base),
    };
  },
});
