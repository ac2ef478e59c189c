/**
 * Laguna: Qwen 3's attention with a gate on its results, a number of heads and a rotation of its own for each kind of layer,
 * and experts chosen by sigmoids beside one that all tokens use.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  attention,
  divideHeads,
  GatedMLP,
  initializeRope,
  joinHeads,
  type KeyValueCache,
  type Layer,
  Linear,
  type Mask,
  Module,
  mixExperts,
  parameter,
  projectHeads,
  RMSNorm,
  type RopeOptions,
  RopeScaling,
  type RotaryEmbedding,
  type Routing,
  routeWithinGroups,
  type Split,
  SwitchGLU,
  stackExperts,
} from "../nn";
import { AttentionType, checkLayerTypes, maskOf, size, trunkFields } from "./args";
import { blockAwq } from "./awq-facts";
import { decoder, precise } from "./gguf/decoder";
import { gating } from "./gguf/deepseek2";
import { f32, u32 } from "./gguf/facts";
import { expertLayer, plainLayer, sharedExpert, TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { CausalLM } from "./language-model";
import { Block } from "./llama";

export const Args = z
  .object({
    ...trunkFields,
    vocab_size: size.default(100_352),
    hidden_size: size.default(2048),
    num_hidden_layers: size.default(40),
    rms_norm_eps: z.number().positive().default(1e-6),
    tie_word_embeddings: z.boolean().default(false),
    intermediate_size: size.default(8192),
    num_attention_heads: size.default(48),
    num_key_value_heads: size.default(8),
    head_dim: size.default(128),
    max_position_embeddings: size.default(262_144),
    attention_bias: z.boolean().default(false),
    qkv_bias: z.boolean().default(false),
    /** One gate for each head, for each of its features, or none. */
    gating: z.union([z.boolean(), z.enum(["per-head", "per-element"])]).default(true),
    sliding_window: size.nullable().default(512),
    partial_rotary_factor: z.number().positive().max(1).nullish(),
    rope_parameters: z.record(z.string(), RopeScaling).nullish(),
    layer_types: z.array(AttentionType).nullish(),
    num_attention_heads_per_layer: z.array(size).nullish(),
    mlp_layer_types: z.array(z.enum(["dense", "sparse"])).nullish(),
    num_experts: size.default(256),
    num_experts_per_tok: size.default(8),
    moe_intermediate_size: size.default(512),
    shared_expert_intermediate_size: size.default(512),
    moe_routed_scaling_factor: z.number().default(1),
    moe_router_logit_softcapping: z.number().nonnegative().default(0),
    moe_router_score_func: z.enum(["sigmoid", "sqrtsoftplus"]).default("sigmoid"),
  })
  .superRefine(checkLayerTypes)
  .superRefine((args, context) => {
    const problem = (field: string, message: string) => context.addIssue({ code: "custom", path: [field], message });
    const { num_hidden_layers: count, num_key_value_heads: kvHeads, num_experts: experts } = args;
    for (const field of ["num_attention_heads_per_layer", "mlp_layer_types"] as const) {
      const length = args[field]?.length;
      if (length && length !== count) problem(field, `has ${length} entries, but "num_hidden_layers" is ${count}`);
    }
    const heads = args.num_attention_heads_per_layer ?? [args.num_attention_heads];
    const uneven = heads.find((one) => one % kvHeads !== 0);
    if (uneven) problem("num_key_value_heads", `is ${kvHeads}, but heads (${uneven}) must be a multiple of it`);
    if (args.num_experts_per_tok > experts) {
      problem("num_experts_per_tok", `is ${args.num_experts_per_tok}, but "num_experts" is ${experts}`);
    }
  });

type Args = z.infer<typeof Args>;

function ropeOf(args: Args, type: AttentionType): RopeOptions {
  const { rope_theta: base = 10_000, ...scaling } = args.rope_parameters?.[type] ?? {};
  const share = scaling.partial_rotary_factor ?? args.partial_rotary_factor ?? 1;
  return {
    dims: Math.trunc(args.head_dim * share),
    base: base ?? 10_000,
    scaling,
    maxPositions: args.max_position_embeddings,
  };
}

class Attention extends Module {
  q_proj: Layer;
  k_proj: Layer;
  v_proj: Layer;
  o_proj: Layer;
  q_norm: RMSNorm;
  k_norm: RMSNorm;
  g_proj?: Layer;
  readonly rope: RotaryEmbedding;
  readonly heads: number;
  readonly kvHeads: number;
  readonly scale: number;

  constructor(args: Args, type: AttentionType, heads: number) {
    super();
    const { hidden_size: D, head_dim: headDim, num_key_value_heads: kvHeads, qkv_bias: bias, gating } = args;
    this.q_proj = new Linear(D, heads * headDim, { bias });
    this.k_proj = new Linear(D, kvHeads * headDim, { bias });
    this.v_proj = new Linear(D, kvHeads * headDim, { bias });
    this.o_proj = new Linear(heads * headDim, D, { bias: args.attention_bias });
    this.q_norm = new RMSNorm(headDim, args.rms_norm_eps);
    this.k_norm = new RMSNorm(headDim, args.rms_norm_eps);
    if (gating) this.g_proj = new Linear(D, gating === "per-element" ? heads * headDim : heads, { bias: false });
    this.rope = initializeRope(ropeOf(args, type));
    this.heads = heads;
    this.kvHeads = kvHeads;
    this.scale = headDim ** -0.5;
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const [q, k, v] = projectHeads(x, [this.q_proj, this.k_proj, this.v_proj], this, cache?.offset);
    const out = joinHeads(attention(q, k, v, { scale: this.scale, mask, cache }));
    return this.o_proj.forward(this.g_proj ? this.#gated(out, this.g_proj.forward(x)) : out);
  }

  /** x (B, T, H · D), gates (B, T, H) or (B, T, H · D) */
  #gated(x: Tensor, gates: Tensor): Tensor {
    const opened = mx.unflatten(mx.logaddexp(gates.astype("float32"), 0).astype(x.dtype), -1, [this.heads, -1]);
    return mx.unflatten(x, -1, [this.heads, -1]).multiply(opened).flatten(-2, -1);
  }

  shard(split: Split): void {
    divideHeads(this, split, { layers: ["g_proj"] });
  }
}

class Router extends Module {
  proj: Layer;
  e_score_correction_bias: Tensor;
  readonly #args: Args;

  constructor(args: Args) {
    super();
    this.proj = new Linear(args.hidden_size, args.num_experts, { bias: false });
    this.e_score_correction_bias = parameter(mx.zeros([args.num_experts]));
    this.#args = args;
  }

  forward(x: Tensor): Routing {
    const { moe_router_logit_softcapping: cap, moe_router_score_func: kind, num_experts_per_tok } = this.#args;
    const raw = this.proj.forward(x).astype("float32");
    const logits = cap > 0 ? raw.divide(cap).tanh().multiply(cap) : raw;
    const scores = kind === "sigmoid" ? logits.sigmoid() : mx.logaddexp(logits, 0).sqrt();
    return routeWithinGroups(scores, this.e_score_correction_bias, {
      expertsPerToken: num_experts_per_tok,
      groups: 1,
      groupsPerToken: 1,
      normalize: true,
      scale: 1,
    });
  }
}

class MoE extends Module {
  gate: Router;
  switch_mlp: SwitchGLU;
  shared_expert: GatedMLP;
  readonly scale: number;

  constructor(args: Args) {
    super();
    const { hidden_size: D } = args;
    this.gate = new Router(args);
    this.switch_mlp = new SwitchGLU(D, args.moe_intermediate_size, args.num_experts);
    this.shared_expert = new GatedMLP(D, args.shared_expert_intermediate_size);
    this.scale = args.moe_routed_scaling_factor;
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    const mixed = mixExperts(x, this.switch_mlp, this.gate.forward(x)).astype(x.dtype);
    return mixed.multiply(this.scale).add(this.shared_expert.forward(x));
  }
}

export class Model extends CausalLM {
  readonly experts: number;

  constructor(args: Args) {
    super(args, (index) => {
      const type = args.layer_types?.[index] ?? "full_attention";
      const heads = args.num_attention_heads_per_layer?.[index] ?? args.num_attention_heads;
      const isSparse = args.mlp_layer_types ? args.mlp_layer_types[index] === "sparse" : index > 0;
      const mlp = isSparse ? new MoE(args) : new GatedMLP(args.hidden_size, args.intermediate_size);
      return new Block(new Attention(args, type, heads), mlp, args, maskOf(type, args));
    });
    this.experts = args.num_experts;
  }

  /** Drops the prefix that repacked checkpoints have, and gives the experts and their router their names here. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const bare = [...weights].map(([name, weight]) => [ours(name.replace(/^language_model\./, "")), weight] as const);
    const sanitized = super.sanitize(new Map(bare));
    for (const index of this.layers.keys()) {
      const mlp = `model.layers.${index}.mlp`;
      stackExperts(sanitized, { count: this.experts, from: `${mlp}.experts`, to: `${mlp}.switch_mlp` });
    }
    return sanitized;
  }
}

/** The name here of a router's tensor in the original checkpoints. */
const ours = (name: string) =>
  name
    .replace(/mlp\.gate\.(weight|scales|biases)$/, "mlp.gate.proj.$1")
    .replace("mlp.experts.e_score_correction_bias", "mlp.gate.e_score_correction_bias");

/** The router decides which experts are read: it stays at 8 bits. */
export const quantize = (path: string) => (path.endsWith("mlp.gate.proj") ? { groupSize: 64, bits: 8 } : undefined);

/** The bias of the routing is learned in float32, and small. */
export const keepsDtype = (path: string) => path.endsWith("e_score_correction_bias");

export const awq = blockAwq({ router: "gate.proj" });

/** How many features turn, in layers of a kind. */
const turningOf = (args: Args, type: AttentionType) => ropeOf(args, type).dims;

const typesOf = (args: Pick<Args, "layer_types" | "num_hidden_layers">): AttentionType[] =>
  Array.from({ length: args.num_hidden_layers }, (_, i) => args.layer_types?.[i] ?? "full_attention");

export const gguf = decoder("laguna", {
  names: new TensorNames(
    {
      ...plainLayer,
      ...expertLayer("mlp"),
      ...sharedExpert("mlp.shared_expert"),
      attn_gate: "self_attn.g_proj",
      ffn_gate_inp: "mlp.gate.proj",
    },
    { parameters: { "exp_probs_b.bias": "mlp.gate.e_score_correction_bias" } },
  ),
  turning: (settings) => turningOf(settings as unknown as Args, "full_attention"),
  windows: { period: 1, typeOf: (settings, index) => typesOf(settings as unknown as Args)[index]! },
  integers: {
    expert_count: "num_experts",
    expert_used_count: "num_experts_per_tok",
    expert_feed_forward_length: "moe_intermediate_size",
    expert_shared_feed_forward_length: "shared_expert_intermediate_size",
  },
  floats: { expert_weights_scale: "moe_routed_scaling_factor" },
  // llama.cpp does not cap the logits of routers.
  only: { attention_bias: false, qkv_bias: false, moe_router_score_func: "sigmoid", moe_router_logit_softcapping: 0 },
  read(file, common) {
    const layers = common.num_hidden_layers as number;
    const headDim = common.head_dim as number;
    const heads = file.list("attention.head_count") ?? [];
    const each = Array.from({ length: layers }, (_, i) => i);
    const gates = file.shape("blk.0.attn_gate.weight")?.[0];
    const own = heads[0] ?? (common.num_attention_heads as number);
    const share = (dims: number) => dims / headDim;
    return {
      partial_rotary_factor: undefined,
      rope_theta: undefined,
      rope_scaling: undefined,
      num_attention_heads_per_layer: heads.length === layers ? [...heads] : undefined,
      mlp_layer_types: each.map((i) => (file.shape(`blk.${i}.ffn_gate_inp.weight`) ? "sparse" : "dense")),
      gating: gates === undefined ? false : gates === own ? "per-head" : "per-element",
      rope_parameters: {
        full_attention: {
          rope_type: "default",
          ...(common.rope_scaling as object | undefined),
          rope_theta: common.rope_theta,
          partial_rotary_factor: share(file.number("rope.dimension_count") ?? headDim),
        },
        sliding_attention: {
          rope_type: "default",
          rope_theta: precise(file.number("rope.freq_base_swa") ?? 10_000),
          partial_rotary_factor: share(file.number("rope.dimension_count_swa") ?? headDim),
        },
      },
    };
  },
  write(settings) {
    const args = settings as unknown as Args;
    const { scaling, base } = ropeOf(args, "sliding_attention");
    const stretches = scaling && (scaling.factor ?? 1) !== 1;
    if (stretches) noPlace("a stretched rotation of sliding layers");
    const sparse = args.mlp_layer_types?.indexOf("sparse") ?? 1;
    if (sparse >= 0 && args.mlp_layer_types?.includes("dense", sparse)) {
      noPlace('"mlp_layer_types" with a dense layer behind sparse ones');
    }
    return {
      "attention.head_count": u32(args.num_attention_heads_per_layer ?? [args.num_attention_heads]),
      "rope.freq_base": f32(ropeOf(args, "full_attention").base),
      "rope.freq_base_swa": f32(base),
      "rope.dimension_count_swa": u32(turningOf(args, "sliding_attention")),
      leading_dense_block_count: u32(sparse < 0 ? args.num_hidden_layers : sparse),
      expert_gating_func: u32(gating.sigmoid),
      expert_weights_norm: ["bool", true],
    };
  },
});
