/**
 * Kimi Linear: Kimi delta attention in three of four layers, latent attention without positions in the others, and DeepSeek
 * V3's experts.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  ArraysCache,
  CausalConv1d,
  type DecoderLayer,
  fullAttentionArray,
  GatedMLP,
  type KeyValueCache,
  KimiDelta,
  KimiDeltaAttention,
  LatentAttention,
  type Layer,
  Linear,
  latentJoins,
  type Mask,
  type MaskRule,
  Module,
  mixExperts,
  parameter,
  type Residual,
  RMSNorm,
  recurrent,
  routeWithinGroups,
  SwitchGLU,
  splitKeysValues,
  stackExperts,
  usualJoins,
} from "../nn";
import { count, size, trunkFields } from "./args";
import { blockAwq } from "./awq-facts";
import { channelKernels, decayRate, inTurn, type TensorChange } from "./gguf/changes";
import { decoder } from "./gguf/decoder";
import { gating, latentLayer } from "./gguf/deepseek2";
import { u32 } from "./gguf/facts";
import { deltaLayer, expertLayer, fusedExperts, plainLayer, sharedExpert, TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { CausalLM } from "./language-model";

interface ExpertCounts {
  num_experts: number;
  num_experts_per_token: number;
  num_expert_group: number;
  topk_group: number;
}

/** For `superRefine`: no more experts or groups in use than there are. */
export function checkKimiExperts(args: ExpertCounts, context: z.RefinementCtx): void {
  const { num_experts: experts, num_experts_per_token: used, num_expert_group: groups, topk_group } = args;
  const problem = (field: string, message: string) => context.addIssue({ code: "custom", path: [field], message });
  if (experts === 0) return;
  if (used > experts) problem("num_experts_per_token", `is ${used}, but "num_experts" is ${experts}`);
  if (experts % groups !== 0 || (groups > 1 && experts / groups < 2)) {
    problem("num_expert_group", `is ${groups}, but must divide "num_experts" (${experts}) into groups of 2 or more`);
  }
  if (topk_group > groups) problem("topk_group", `is ${topk_group}, but "num_expert_group" is ${groups}`);
}

export const Args = z
  .object({
    ...trunkFields,
    tie_word_embeddings: z.boolean().default(false),
    intermediate_size: size,
    num_attention_heads: size,
    head_dim: size,
    linear_attn_config: z.object({
      /** Numbers of the layers of delta attention, from one on. */
      kda_layers: z.array(size),
      num_heads: size,
      head_dim: size,
      short_conv_kernel_size: size.default(4),
    }),
    num_experts: count,
    moe_intermediate_size: size,
    kv_lora_rank: size,
    qk_nope_head_dim: size.nullish(),
    qk_rope_head_dim: size.nullish(),
    v_head_dim: size.nullish(),
    num_experts_per_token: size.default(1),
    num_shared_experts: count.default(0),
    moe_router_activation_func: z.enum(["sigmoid", "softmax"]).default("sigmoid"),
    moe_renormalize: z.boolean().default(true),
    routed_scaling_factor: z.number().default(1),
    first_k_dense_replace: count.default(0),
    moe_layer_freq: size.default(1),
    num_expert_group: size.default(1),
    topk_group: size.default(1),
  })
  .superRefine(checkKimiExperts);

type Args = z.infer<typeof Args>;

/** A convolution under a name of its own. */
export class ShortConv extends Module {
  conv: CausalConv1d;

  constructor(channels: number, kernelSize: number) {
    super();
    this.conv = new CausalConv1d(channels, kernelSize, { bias: false });
  }
}

class DeltaAttention extends KimiDeltaAttention {
  q_conv: ShortConv;
  k_conv: ShortConv;
  v_conv: ShortConv;
  f_a_proj: Layer;
  f_b_proj: Layer;
  g_a_proj: Layer;
  g_b_proj: Layer;

  constructor({ hidden_size: dims, rms_norm_eps: eps, linear_attn_config: config }: Args) {
    const { num_heads: heads, head_dim: headDim, short_conv_kernel_size: kernelSize } = config;
    super({ dims, heads, headDim, eps }, [1, 1, heads, 1]);
    const inner = heads * headDim;
    this.q_conv = new ShortConv(inner, kernelSize);
    this.k_conv = new ShortConv(inner, kernelSize);
    this.v_conv = new ShortConv(inner, kernelSize);
    this.f_a_proj = new Linear(dims, headDim, { bias: false });
    this.f_b_proj = new Linear(headDim, inner, { bias: false });
    this.g_a_proj = new Linear(dims, headDim, { bias: false });
    this.g_b_proj = new Linear(headDim, inner, { bias: false });
  }

  protected override convolutions() {
    return [this.q_conv.conv, this.k_conv.conv, this.v_conv.conv] as const;
  }

  protected override fading(x: Tensor): Tensor {
    return this.f_b_proj.forward(this.f_a_proj.forward(x));
  }

  protected override gates(x: Tensor): Tensor {
    return this.g_b_proj.forward(this.g_a_proj.forward(x));
  }
}

function latentSizes(args: Args) {
  return {
    dims: args.hidden_size,
    heads: args.num_attention_heads,
    queryRank: null,
    rank: args.kv_lora_rank,
    plainDims: args.qk_nope_head_dim ?? args.head_dim,
    rotatedDims: args.qk_rope_head_dim ?? 0,
    valueDims: args.v_head_dim ?? args.head_dim,
    bias: false,
    eps: args.rms_norm_eps,
  };
}

function latentAttention(args: Args): LatentAttention {
  const sizes = latentSizes(args);
  return new LatentAttention(sizes, null, (sizes.plainDims + sizes.rotatedDims) ** -0.5);
}

class MoE extends Module {
  gate: Layer;
  switch_mlp: SwitchGLU;
  e_score_correction_bias: Tensor;
  shared_experts?: Layer;
  readonly #args: Args;

  constructor(args: Args) {
    super();
    const { hidden_size: dims, moe_intermediate_size: hidden, num_experts: experts, num_shared_experts: shared } = args;
    this.gate = new Linear(dims, experts, { bias: false });
    this.switch_mlp = new SwitchGLU(dims, hidden, experts);
    this.e_score_correction_bias = parameter(mx.zeros([experts]));
    if (shared) this.shared_experts = new GatedMLP(dims, hidden * shared);
    this.#args = args;
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    const args = this.#args;
    const logits = this.gate.forward(x);
    const isSoftmax = args.moe_router_activation_func === "softmax";
    const scores = isSoftmax ? mx.softmax(logits, { axis: -1 }) : logits.sigmoid();
    const routing = routeWithinGroups(scores, this.e_score_correction_bias, {
      expertsPerToken: args.num_experts_per_token,
      groups: args.num_expert_group,
      groupsPerToken: args.topk_group,
      normalize: args.moe_renormalize,
      scale: args.routed_scaling_factor,
    });
    const mixed = mixExperts(x, this.switch_mlp, routing).astype(x.dtype);
    return this.shared_experts ? mixed.add(this.shared_experts.forward(x)) : mixed;
  }
}

export type HybridCache = KeyValueCache | ArraysCache;

interface LayerKinds {
  first_k_dense_replace: number;
  moe_layer_freq: number;
  num_experts: number;
  linear_attn_config: { kda_layers: readonly number[] };
}

/** What a layer is made of; the configuration counts layers from 1. */
export const layerKinds = (args: LayerKinds, index: number) => ({
  isDelta: args.linear_attn_config.kda_layers.includes(index + 1),
  isSparse: args.num_experts > 0 && index >= args.first_k_dense_replace && index % args.moe_layer_freq === 0,
});

interface Latent extends Module {
  forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor;
}

/** Delta attention or latent attention, each with its own mask and cache, and what follows. */
export class KimiBlock extends Module implements DecoderLayer<HybridCache> {
  self_attn: KimiDelta | Latent;
  mlp: Layer;
  input_layernorm: RMSNorm;
  post_attention_layernorm: RMSNorm;
  readonly mask: MaskRule<never>;
  readonly makeCache?: () => HybridCache;

  constructor(
    attention: KimiDelta | Latent,
    mlp: Layer,
    { hidden_size: D, rms_norm_eps: eps }: { hidden_size: number; rms_norm_eps: number },
  ) {
    super();
    this.self_attn = attention;
    this.mlp = mlp;
    this.input_layernorm = new RMSNorm(D, eps);
    this.post_attention_layernorm = new RMSNorm(D, eps);
    const states = attention instanceof KimiDelta ? attention.stateAt + 1 : 0;
    this.mask = states > 0 ? recurrent : fullAttentionArray;
    if (states > 0) this.makeCache = () => new ArraysCache(states);
  }

  forward(x: Residual, mask: Mask, cache?: HybridCache): Residual {
    const h = x.plus(this.attend(x.branch(this.input_layernorm), mask, cache));
    return h.plus(this.mlp.forward(h.branch(this.post_attention_layernorm)));
  }

  /** x (B, T, D) → (B, T, D) */
  protected attend(x: Tensor, mask: Mask, cache?: HybridCache): Tensor {
    return this.self_attn instanceof KimiDelta
      ? this.self_attn.forward(x, mask as Tensor | null, cache as ArraysCache | undefined)
      : this.self_attn.forward(x, mask, cache as KeyValueCache | undefined);
  }
}

function makeBlock(args: Args, index: number): KimiBlock {
  const { isDelta, isSparse } = layerKinds(args, index);
  const attention = isDelta ? new DeltaAttention(args) : latentAttention(args);
  const mlp = isSparse ? new MoE(args) : new GatedMLP(args.hidden_size, args.intermediate_size);
  return new KimiBlock(attention, mlp, args);
}

export class Model extends CausalLM<HybridCache> {
  readonly #args: Args;

  constructor(args: Args) {
    super(args, (index) => makeBlock(args, index));
    this.#args = args;
  }

  /** Gives experts and convolutions their names here, and takes the projections of keys and values apart. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const renamed = [...super.sanitize(weights)]
      .filter(([name]) => !name.startsWith("model.mtp"))
      .map(([name, weight]) => ours(name, weight));
    const sanitized = new Map(renamed);
    for (const index of this.layers.keys()) {
      const path = `model.layers.${index}`;
      const names = { gate_proj: "w1", down_proj: "w2", up_proj: "w3" };
      const { num_experts: count } = this.#args;
      stackExperts(sanitized, { count, from: `${path}.mlp.experts`, to: `${path}.mlp.switch_mlp`, names });
      splitKeysValues(sanitized, `${path}.self_attn`, latentSizes(this.#args));
    }
    return sanitized;
  }
}

/** A tensor of the original checkpoints under its name here. */
function ours(name: string, weight: Tensor): [string, Tensor] {
  if (name.endsWith("dt_bias")) return [name, weight.flatten()];
  const convolution = /^(.*\.[qkv]_conv)1d\.weight$/.exec(name);
  if (convolution) return [`${convolution[1]}.conv.weight`, weight.ndim === 3 ? mx.moveaxis(weight, 2, 1) : weight];
  const bias = name.replace("gate.e_score_correction_bias", "e_score_correction_bias");
  return [bias.replace(".block_sparse_moe.", ".mlp."), weight];
}

/** The router decides which experts are read: it stays at 8 bits. */
export const quantize = (path: string) => (path.endsWith("mlp.gate") ? { groupSize: 64, bits: 8 } : undefined);

/** What decays and routing are made of is learned in float32. */
export const keepsDtype = (path: string) => /(A_log|dt_bias|e_score_correction_bias)$/.test(path);

export const joins = [...usualJoins, ...latentJoins];

export const awq = blockAwq();

const perHead: TensorChange = { read: (x) => x.reshape(1, 1, -1, 1), write: (x) => x };

export const gguf = decoder("kimi-linear", {
  names: new TensorNames(
    {
      ...plainLayer,
      ...latentLayer,
      ...expertLayer("mlp"),
      ...sharedExpert("mlp.shared_experts"),
      ssm_conv1d_q: "self_attn.q_conv.conv",
      ssm_conv1d_k: "self_attn.k_conv.conv",
      ssm_conv1d_v: "self_attn.v_conv.conv",
      ...deltaLayer,
      ssm_g_a: "self_attn.g_a_proj",
      ssm_g_b: "self_attn.g_b_proj",
      // Of old files.
      attn_kv_b: "self_attn.kv_b_proj",
    },
    {
      parameters: {
        ssm_a: "self_attn.A_log",
        "ssm_dt.bias": "self_attn.dt_bias",
        "exp_probs_b.bias": "mlp.e_score_correction_bias",
      },
      halves: fusedExperts("mlp"),
    },
  ),
  changes: () => ({
    "self_attn.q_conv.conv": channelKernels,
    "self_attn.k_conv.conv": channelKernels,
    "self_attn.v_conv.conv": channelKernels,
    "self_attn.A_log": inTurn(decayRate, perHead),
  }),
  turning: (settings) => (settings as unknown as Args).qk_rope_head_dim ?? 0,
  stretches: false,
  only: { moe_renormalize: true, moe_layer_freq: 1, moe_router_activation_func: "sigmoid", tie_word_embeddings: false },
  integers: {
    expert_count: "num_experts",
    expert_used_count: "num_experts_per_token",
    expert_shared_count: "num_shared_experts",
    expert_feed_forward_length: "moe_intermediate_size",
    leading_dense_block_count: "first_k_dense_replace",
    "attention.kv_lora_rank": "kv_lora_rank",
    expert_group_count: "num_expert_group",
    expert_group_used_count: "topk_group",
  },
  floats: { expert_weights_scale: "routed_scaling_factor" },
  read(file, common) {
    const heads = common.num_attention_heads as number;
    const layers = common.num_hidden_layers as number;
    const kvHeads = file.list("attention.head_count_kv") ?? [];
    const turning = file.need("rope.dimension_count");
    return {
      num_key_value_heads: heads,
      partial_rotary_factor: undefined,
      head_dim: Math.max(Math.trunc((common.hidden_size as number) / heads), 1),
      qk_rope_head_dim: turning,
      qk_nope_head_dim: file.need("attention.key_length_mla") - turning,
      v_head_dim: file.need("attention.value_length_mla"),
      linear_attn_config: {
        kda_layers: Array.from({ length: layers }, (_, i) => i + 1).filter((number) => kvHeads[number - 1] === 0),
        full_attn_layers: Array.from({ length: layers }, (_, i) => i + 1).filter((number) => kvHeads[number - 1] !== 0),
        num_heads: heads,
        head_dim: file.need("kda.head_dim"),
        short_conv_kernel_size: file.need("ssm.conv_kernel"),
      },
    };
  },
  write(settings) {
    const args = settings as unknown as Args;
    const { linear_attn_config: linear, num_attention_heads: heads, kv_lora_rank: rank } = args;
    const { plainDims, rotatedDims, valueDims } = latentSizes(args);
    if (linear.num_heads !== heads) noPlace(`"num_heads" ${linear.num_heads} of delta attention (not ${heads})`);
    if (args.num_experts === 0) noPlace("a model without experts");
    const layers = Array.from({ length: args.num_hidden_layers }, (_, index) => layerKinds(args, index).isDelta);
    return {
      vocab_size: u32(args.vocab_size),
      "attention.head_count_kv": u32(layers.map((isDelta) => (isDelta ? 0 : 1))),
      "attention.key_length": u32(rank + rotatedDims),
      "attention.value_length": u32(rank),
      "attention.key_length_mla": u32(plainDims + rotatedDims),
      "attention.value_length_mla": u32(valueDims),
      "kda.head_dim": u32(linear.head_dim),
      "ssm.conv_kernel": u32(linear.short_conv_kernel_size),
      expert_gating_func: u32(gating.sigmoid),
      expert_weights_norm: ["bool", true],
    };
  },
});
