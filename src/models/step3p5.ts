/**
 * Step 3.5: Qwen 3's attention with a sigmoid gate for each head, and heads, rotation and window by type of layer; experts
 * by sigmoids beside one that all tokens use; SwiGLU clipped in some layers.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  attention,
  divideHeads,
  GatedMLP,
  highestOfSigmoid,
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
  type Routing,
  type Split,
  SwitchGLU,
  splitHeads,
  swigluWithin,
} from "../nn";
import { AttentionType, checkLayerTypes, maskOf, size, trunkFields } from "./args";
import { blockAwq } from "./awq-facts";
import { decoder, precise } from "./gguf/decoder";
import { gating } from "./gguf/deepseek2";
import { f32, u32 } from "./gguf/facts";
import { ropeFactorsName, scalingOf } from "./gguf/llama3-scaling";
import { expertLayer, fusedExperts, plainLayer, sharedExpert, TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { CausalLM } from "./language-model";
import * as llama from "./llama";
import { withoutDraftLayers } from "./mtp/draft-layers";
import { behind, draftTensors, type MtpFacts } from "./mtp/facts";
import { LayeredHead } from "./mtp/layered-head";

/** Heads, and how many groups of keys and values they share. */
const headFields = { num_attention_heads: size, num_attention_groups: size };

const limits = z.array(z.number().nonnegative().nullable()).nullish();

const base = z.number().positive();

export const Args = z
  .object({
    ...trunkFields,
    ...headFields,
    head_dim: size,
    intermediate_size: size,
    rms_norm_eps: z.number().positive().default(1e-5),
    rope_theta: z.union([base, z.array(base)]).default(10_000),
    rope_scaling: RopeScaling.nullish(),
    max_position_embeddings: size.default(262_144),
    sliding_window: size.default(512),
    layer_types: z.array(AttentionType).nullish(),
    /** The types of layers whose positions are stretched; all where absent or empty. */
    yarn_only_types: z.array(z.string()).nullish(),
    partial_rotary_factors: z.array(z.number().positive().max(1)).nullish(),
    /** Of layers that slide. */
    attention_other_setting: z.object(headFields).nullish(),
    use_head_wise_attn_gate: z.boolean().default(true),
    moe_num_experts: size.default(288),
    moe_top_k: size.default(8),
    moe_intermediate_size: size.default(1280),
    share_expert_dim: size.default(1280),
    /** Numbers of the layers with experts; all but the first where absent. */
    moe_layers_enum: z.string().nullish(),
    moe_router_scaling_factor: z.number().default(3),
    norm_expert_weight: z.boolean().default(true),
    /** Bounds of SwiGLU by layer, none where zero; of experts, and of all other blocks. */
    swiglu_limits: limits,
    swiglu_limits_shared: limits,
  })
  // Checkpoints with draft layers say theirs too, behind the model's.
  .superRefine((args, context) => {
    const { layer_types: types, num_hidden_layers: layers } = args;
    checkLayerTypes({ ...args, layer_types: types && types.length > layers ? types.slice(0, layers) : types }, context);
  })
  .superRefine((args, context) => {
    const problem = (field: string, message: string) => context.addIssue({ code: "custom", path: [field], message });
    const { moe_top_k: used, moe_num_experts: all, rope_theta: bases, num_hidden_layers: layers } = args;
    if (used > all) problem("moe_top_k", `is ${used}, but "moe_num_experts" is ${all}`);
    if (Array.isArray(bases) && bases.length < layers) {
      problem("rope_theta", `has ${bases.length} entries, but "num_hidden_layers" is ${layers}`);
    }
    for (const { num_attention_heads: heads, num_attention_groups: groups } of [
      args,
      args.attention_other_setting ?? args,
    ]) {
      if (heads % groups === 0) continue;
      problem("num_attention_groups", `is ${groups}, but "num_attention_heads" (${heads}) must be a multiple of it`);
    }
  });

type Args = z.infer<typeof Args>;

const typeOf = (args: Args, index: number): AttentionType =>
  args.layer_types?.[index] ?? (index % 2 === 0 ? "sliding_attention" : "full_attention");

function rotated(args: Args, index: number): RopeOptions {
  const { rope_theta: bases, yarn_only_types: stretched, layer_types: types } = args;
  const isStretched = !stretched?.length || stretched.includes(types?.[index] ?? "full_attention");
  return {
    dims: Math.trunc(args.head_dim * (args.partial_rotary_factors?.[index] ?? 1)),
    base: Array.isArray(bases) ? (bases[index] ?? bases.at(-1)!) : bases,
    scaling: isStretched ? args.rope_scaling : null,
    maxPositions: args.max_position_embeddings,
  };
}

class Attention extends llama.Attention {
  q_norm: RMSNorm;
  k_norm: RMSNorm;
  g_proj?: Layer;

  constructor(args: Args, index: number) {
    const { attention_other_setting: other, hidden_size, head_dim } = args;
    const own = typeOf(args, index) === "sliding_attention" && other ? other : args;
    const { num_attention_heads, num_attention_groups: num_key_value_heads } = own;
    const heads = { hidden_size, head_dim, num_attention_heads, num_key_value_heads };
    super({ ...heads, attention_bias: false, rope_traditional: false }, { rope: rotated(args, index) });
    this.q_norm = new RMSNorm(head_dim, args.rms_norm_eps);
    this.k_norm = new RMSNorm(head_dim, args.rms_norm_eps);
    if (args.use_head_wise_attn_gate) this.g_proj = new Linear(hidden_size, num_attention_heads, { bias: false });
  }

  protected override attend(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const [q, k, v] = projectHeads(x, [this.q_proj, this.k_proj, this.v_proj], this, cache?.offset);
    const out = attention(q, k, v, { scale: this.scale, mask, cache });
    if (!this.g_proj) return joinHeads(out);
    return joinHeads(out.multiply(splitHeads(this.g_proj.forward(x), this.heads).sigmoid()));
  }

  override shard(split: Split): void {
    divideHeads(this, split, { layers: ["g_proj"] });
  }
}

/** The activation of a layer, by the list of bounds; SwiGLU without any where absent. */
function activationOf(bounds: Args["swiglu_limits"], index: number) {
  const limit = bounds?.[index];
  return limit ? { activation: swigluWithin(limit) } : {};
}

const mlpOf = (args: Args, hiddenDims: number, index: number) =>
  new GatedMLP(args.hidden_size, hiddenDims, { downLast: true, ...activationOf(args.swiglu_limits_shared, index) });

class Router extends Module {
  gate: Layer;
  /** (experts) */
  router_bias: Tensor;

  constructor(readonly args: Args) {
    super();
    this.gate = new Linear(args.hidden_size, args.moe_num_experts, { bias: false });
    this.router_bias = parameter(mx.zeros([args.moe_num_experts]));
  }

  /** x (…, D) → the experts of each token and the weights of their results, float32: (…, k) each. */
  forward(x: Tensor): Routing {
    return highestOfSigmoid(this.gate.forward(x), this.router_bias, {
      expertsPerToken: this.args.moe_top_k,
      normalize: this.args.norm_expert_weight,
      scale: this.args.moe_router_scaling_factor,
    });
  }
}

class MoE extends Module {
  gate: Router;
  switch_mlp: SwitchGLU;
  share_expert: Layer;

  constructor(args: Args, index: number) {
    super();
    const { hidden_size: dims, moe_intermediate_size: hidden, moe_num_experts: experts } = args;
    this.gate = new Router(args);
    this.switch_mlp = new SwitchGLU(dims, hidden, experts, activationOf(args.swiglu_limits, index));
    this.share_expert = mlpOf(args, args.share_expert_dim, index);
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    const mixed = mixExperts(x, this.switch_mlp, this.gate.forward(x)).astype(x.dtype);
    return mixed.add(this.share_expert.forward(x));
  }
}

/** Original names and ours. */
const renamed = [
  [".moe.gate_proj.", ".mlp.switch_mlp.gate_proj."],
  [".moe.up_proj.", ".mlp.switch_mlp.up_proj."],
  [".moe.down_proj.", ".mlp.switch_mlp.down_proj."],
  [".moe.gate.", ".mlp.gate.gate."],
  [".moe.router_bias", ".mlp.gate.router_bias"],
  [".share_expert.", ".mlp.share_expert."],
] as const;

function ownName(name: string): string {
  const [theirs, ours] = renamed.find(([theirs, ours]) => name.includes(theirs) && !name.includes(ours)) ?? ["", ""];
  return name.replace(theirs, ours);
}

/** Whether a checkpoint is the original, whose norms are less one. */
const hasOriginalNorms = (weights: ReadonlyMap<string, Tensor>): boolean =>
  [...weights.keys()].some((name) => ownName(name) !== name);

const isNorm = (name: string) => name.includes("norm") && name.endsWith(".weight");

function hasExperts({ moe_layers_enum, num_hidden_layers: layers }: Args, index: number): boolean {
  const enumerated = moe_layers_enum?.split(",").map(Number);
  return enumerated ? enumerated.includes(index) : index > 0 && index < layers;
}

/** The model's, or a draft layer behind it. */
function block(args: Args, index: number): llama.Block {
  const mlp = hasExperts(args, index) ? new MoE(args, index) : mlpOf(args, args.intermediate_size, index);
  return new llama.Block(new Attention(args, index), mlp, args, maskOf(typeOf(args, index), args));
}

export class Model extends CausalLM {
  constructor(args: Args) {
    super({ ...args, tie_word_embeddings: false }, (index) => block(args, index));
  }

  /** Original checkpoints have other names, and norms less one. Layers that predict further tokens are dropped. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const own = withoutDraftLayers(super.sanitize(weights), this.layers.length);
    const kept = [...own].filter(([name]) => !name.includes(".mtp"));
    const isOriginal = hasOriginalNorms(weights);
    return new Map(kept.map(([name, weight]) => [ownName(name), isOriginal && isNorm(name) ? weight.add(1) : weight]));
  }
}

/** The last norm is that of a head of each layer's own. */
export const mtp: MtpFacts = {
  sanitize(weights, { num_hidden_layers: layers }: Args) {
    const isOriginal = hasOriginalNorms(weights);
    const drafts = [...draftTensors(weights, behind(layers))].map(([name, weight]): [string, Tensor] => [
      ownName(name.replace(/^(layers\.\d+\.)transformer\./, "$1")),
      isOriginal && isNorm(name) ? weight.add(1) : weight,
    ]);
    return new Map(drafts);
  },
  head(trunk, args: Args, depth) {
    const blocks = Array.from({ length: depth }, (_, i) => block(args, args.num_hidden_layers + i));
    return new LayeredHead(trunk, blocks, args, { takesStream: true, ownHead: args.vocab_size });
  },
};

/** The router decides which experts are read: it stays at 8 bits. */
export const quantize = (path: string) => (path.endsWith("mlp.gate.gate") ? { groupSize: 64, bits: 8 } : undefined);

/** The bias of the routing is learned in float32, and small. */
export const keepsDtype = (path: string) => path.endsWith("router_bias");

export const awq = blockAwq({ router: "gate.gate", isLinear: false });

const types = ["full_attention", "sliding_attention"] as const;

/** The first layer of a type whose rotation files describe, and whether all others of it turn alike. */
function rotationOf(args: Args, type: AttentionType): RopeOptions | undefined {
  const own = Array.from({ length: args.num_hidden_layers }, (_, index) => index)
    .filter((index) => typeOf(args, index) === type)
    .map((index) => rotated(args, index));
  const [first] = own;
  if (own.some(({ base, dims }) => base !== first!.base || dims !== first!.dims)) {
    noPlace(`"rope_theta" or "partial_rotary_factors" that differ between layers of ${type}`);
  }
  return first;
}

/** Of full attention, half of a head turns. */
const turningShare = { full_attention: 0.5, sliding_attention: 1 };

/** @param prefix what stands before the names of the checkpoint */
export const ggufFacts = (prefix = "") =>
  decoder("step35", {
    names: new TensorNames(
      {
        ...plainLayer,
        attn_gate: "self_attn.g_proj",
        ...expertLayer("mlp"),
        ffn_gate_inp: "mlp.gate.gate",
        ...sharedExpert("mlp.share_expert"),
      },
      { parameters: { "exp_probs_b.bias": "mlp.gate.router_bias" }, halves: fusedExperts("mlp"), prefix },
    ),
    turning: ({ headDim }) => headDim * turningShare.full_attention,
    windows: { period: 1, typeOf: (settings, index) => typeOf(settings as unknown as Args, index) },
    readsFactors: true,
    integers: {
      expert_count: "moe_num_experts",
      expert_used_count: "moe_top_k",
      expert_feed_forward_length: "moe_intermediate_size",
      expert_shared_feed_forward_length: "share_expert_dim",
    },
    floats: { expert_weights_scale: "moe_router_scaling_factor" },
    flags: { expert_weights_norm: "norm_expert_weight" },
    common(config) {
      const args = config as Args;
      const { base } = rotationOf(args, "full_attention") ?? {};
      return { num_key_value_heads: args.num_attention_groups, rope_theta: base };
    },
    read(file, common) {
      const layers = common.num_hidden_layers as number;
      const layerTypes = (common.layer_types as AttentionType[] | undefined) ?? file.wrong("no layer of it slides");
      const [heads, groups] = ["attention.head_count", "attention.head_count_kv"].map((key) => file.list(key) ?? []);
      const headsOf = (type: AttentionType) => {
        const first = Math.max(layerTypes.indexOf(type), 0);
        return {
          num_attention_heads: heads![first] ?? heads![0]!,
          num_attention_groups: groups![first] ?? groups![0]!,
        };
      };
      const base = common.rope_theta as number;
      const slidingBase = precise(file.number("rope.freq_base_swa") ?? base);
      const factors = file.factors(ropeFactorsName);
      const stretched = factors && scalingOf(factors.slice(0, factors.length / 2), base);
      if (factors && !stretched) file.wrong(`its ${ropeFactorsName} are not Llama 3's`);
      const sparse = layerTypes.flatMap((_, i) => (file.shape(`blk.${i}.ffn_gate_inp.weight`) ? [i] : []));
      const limits = (key: string) => file.list(key)?.slice(0, layers).map(precise);
      return {
        num_key_value_heads: undefined,
        ...headsOf("full_attention"),
        attention_other_setting: headsOf("sliding_attention"),
        rope_theta: layerTypes.map((type) => (type === "full_attention" ? base : slidingBase)),
        partial_rotary_factors: layerTypes.map((type) => turningShare[type]),
        rope_scaling: stretched && stretched.factor !== 1 ? { rope_type: "llama3", ...stretched } : undefined,
        yarn_only_types: ["full_attention"],
        moe_layers_enum: sparse.join(","),
        use_head_wise_attn_gate: file.shape("blk.0.attn_gate.weight") !== undefined,
        norm_expert_weight: common.norm_expert_weight ?? false,
        moe_router_scaling_factor: common.moe_router_scaling_factor ?? 1,
        swiglu_limits: limits("swiglu_clamp_exp"),
        swiglu_limits_shared: limits("swiglu_clamp_shexp"),
      };
    },
    write(_, config) {
      const args = config as Args;
      const layers = Array.from({ length: args.num_hidden_layers }, (_, index) => index);
      const slides = layers.map((index) => typeOf(args, index) === "sliding_attention");
      if (!slides.includes(true)) noPlace('"layer_types" without sliding_attention');
      const [full, sliding] = types.map((type) => rotationOf(args, type));
      for (const [i, own] of [full, sliding].entries()) {
        const dims = args.head_dim * turningShare[types[i]!];
        if (own && own.dims !== dims) noPlace(`"partial_rotary_factors" of ${types[i]} with ${own.dims} features`);
      }
      if (args.rope_scaling && sliding?.scaling) noPlace("a stretched rotation of sliding layers");
      const type = args.rope_scaling?.type || args.rope_scaling?.rope_type;
      if (type && type !== "llama3" && type !== "default") noPlace(`a rotation of type "${type}"`);
      const other = args.attention_other_setting ?? args;
      const heads = (field: keyof typeof headFields) => u32(slides.map((is) => (is ? other : args)[field]));
      const limits = (given: Args["swiglu_limits"]) => given && f32(layers.map((index) => given[index] ?? 0));
      const experts = layers.findIndex((index) => hasExperts(args, index));
      return {
        "attention.head_count": heads("num_attention_heads"),
        "attention.head_count_kv": heads("num_attention_groups"),
        "rope.freq_base_swa": f32(sliding!.base),
        "rope.dimension_count": u32(args.head_dim),
        leading_dense_block_count: u32(experts < 0 ? args.num_hidden_layers : experts),
        expert_gating_func: u32(gating.sigmoid),
        swiglu_clamp_exp: limits(args.swiglu_limits) || undefined,
        swiglu_clamp_shexp: limits(args.swiglu_limits_shared) || undefined,
      };
    },
    // Behind those of full attention, ones.
    tensors: ({ headDim }, usual) =>
      Object.fromEntries(
        Object.entries(usual).map(([name, own]) => [name, Array.from({ length: headDim / 2 }, (_, i) => own[i] ?? 1)]),
      ),
  });

export const gguf = ggufFacts();
