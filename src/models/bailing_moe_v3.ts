/**
 * Ling and Ring 3 (Bailing): Kimi delta attention whose decays have a bound, every few layers latent attention with a gate
 * for each head, and experts in groups beside one that all tokens use.
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
  initializeRope,
  type KeyValueCache,
  KimiDeltaAttention,
  type LatentAttentionSizes,
  LatentInputs,
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
  RopeScaling,
  type Routing,
  recurrent,
  routeWithinGroups,
  type Split,
  SwitchGLU,
  splitKeysValues,
  stackExperts,
  swigluWithin,
  turnConvolutions,
  usualJoins,
  yarnTemperature,
} from "../nn";
import { count, size, trunkFields } from "./args";
import { blockAwq } from "./awq-facts";
import { channelKernels, type TensorChange } from "./gguf/changes";
import { countedExperts, decoder, expertGroups, precise } from "./gguf/decoder";
import { gating, latentLayer, normalizes } from "./gguf/deepseek2";
import { f32, type GgufDescription, u32 } from "./gguf/facts";
import { expertLayer, fusedExperts, plainLayer, sharedExpert, TensorNames } from "./gguf/names";
import { CausalLM } from "./language-model";
import { withoutDraftLayers } from "./mtp/draft-layers";
import { behind, depthOf, draftTensors, type MtpFacts } from "./mtp/facts";
import { finalNames, LayeredHead } from "./mtp/layered-head";

const limits = z.array(z.number().nonnegative().nullable()).nullish();

export const Args = z
  .object({
    ...trunkFields,
    vocab_size: size.default(157_184),
    hidden_size: size.default(1536),
    num_hidden_layers: size.default(24),
    rms_norm_eps: z.number().positive().default(1e-6),
    tie_word_embeddings: z.boolean().default(false),
    intermediate_size: size.default(4608),
    moe_intermediate_size: size.default(512),
    moe_shared_expert_intermediate_size: size.default(512),
    num_attention_heads: size.default(16),
    num_experts: size.default(128),
    num_experts_per_tok: size.default(8),
    num_shared_experts: size.default(1),
    first_k_dense_replace: count.default(1),
    n_group: size.default(8),
    topk_group: size.default(4),
    routed_scaling_factor: z.number().default(2.5),
    /** Every how many layers one is latent attention. */
    layer_group_size: size.default(4),
    head_dim: size.default(128),
    q_lora_rank: size.nullable().default(256),
    kv_lora_rank: size.default(512),
    qk_nope_head_dim: size.default(128),
    qk_rope_head_dim: size.default(64),
    v_head_dim: size.default(128),
    short_conv_kernel_size: size.default(4),
    kda_lower_bound: z.number().negative().default(-5),
    kda_safe_gate: z.literal(true).default(true),
    no_kda_lora: z.literal(true).default(true),
    rope_theta: z.number().positive().default(6_000_000),
    rope_scaling: RopeScaling.nullish(),
    max_position_embeddings: size.default(131_072),
    rope_interleave: z.literal(true).default(true),
    /** For each layer how far its experts' activations go; 0 or null for no bound. mlx-lm has none. */
    expert_swiglu_limit_list: limits,
    /** The same of what all tokens use. */
    share_expert_swiglu_limit_list: limits,
  })
  .superRefine(({ num_experts: experts, num_experts_per_tok: used, n_group: groups, topk_group }, context) => {
    const problem = (field: string, message: string) => context.addIssue({ code: "custom", path: [field], message });
    if (used > experts) problem("num_experts_per_tok", `is ${used}, but "num_experts" is ${experts}`);
    if (experts % groups !== 0 || (groups > 1 && experts / groups < 2)) {
      problem("n_group", `is ${groups}, but must divide "num_experts" (${experts}) into groups of 2 or more`);
    }
    if (topk_group > groups) problem("topk_group", `is ${topk_group}, but "n_group" is ${groups}`);
  });

type Args = z.infer<typeof Args>;

/** Whether a layer attends to all: the last of each group, and those behind the last whole group. */
export const attendsToAll = (index: number, layers: number, group: number): boolean =>
  (index + 1) % group === 0 || index >= Math.floor(layers / group) * group;

class DeltaAttention extends KimiDeltaAttention {
  q_conv1d: CausalConv1d;
  k_conv1d: CausalConv1d;
  v_conv1d: CausalConv1d;
  f_proj: Layer;
  g_proj: Layer;
  /** The logarithm of the least that a token leaves of a channel. */
  readonly bound: number;

  constructor(args: Args) {
    const { hidden_size: dims, num_attention_heads: heads, head_dim: headDim, rms_norm_eps: eps } = args;
    super({ dims, heads, headDim, eps }, [heads]);
    const inner = heads * headDim;
    const convolution = () => new CausalConv1d(inner, args.short_conv_kernel_size, { bias: false });
    this.q_conv1d = convolution();
    this.k_conv1d = convolution();
    this.v_conv1d = convolution();
    this.f_proj = new Linear(dims, inner, { bias: false });
    this.g_proj = new Linear(dims, inner, { bias: false });
    this.bound = args.kda_lower_bound;
  }

  protected override convolutions() {
    return [this.q_conv1d, this.k_conv1d, this.v_conv1d] as const;
  }

  protected override fading(x: Tensor): Tensor {
    return this.f_proj.forward(x).astype("float32");
  }

  protected override gates(x: Tensor): Tensor {
    return this.g_proj.forward(x).astype("float32");
  }

  protected override strength(x: Tensor): Tensor {
    return this.b_proj.forward(x).astype("float32").sigmoid();
  }

  protected override decay(fading: Tensor, rates: Tensor): Tensor {
    return rates.multiply(fading).sigmoid().multiply(this.bound);
  }
}

const latentSizes = (args: Args): LatentAttentionSizes => ({
  dims: args.hidden_size,
  heads: args.num_attention_heads,
  queryRank: args.q_lora_rank,
  rank: args.kv_lora_rank,
  plainDims: args.qk_nope_head_dim,
  rotatedDims: args.qk_rope_head_dim,
  valueDims: args.v_head_dim,
  bias: false,
  eps: args.rms_norm_eps,
});

class GatedLatentAttention extends LatentInputs {
  g_proj: Layer;
  dense: Layer;

  constructor(args: Args) {
    const sizes = latentSizes(args);
    const { rotatedDims: dims, plainDims, heads, valueDims } = sizes;
    const { rope_scaling: scaling, rope_theta: base, max_position_embeddings: maxPositions } = args;
    const stretch = scaling?.mscale_all_dim ? yarnTemperature(scaling.factor ?? 1, scaling.mscale_all_dim) : 1;
    const rope = initializeRope({ dims, base, traditional: true, scaling, maxPositions });
    super(sizes, rope, (plainDims + dims) ** -0.5 * stretch ** 2);
    this.g_proj = new Linear(args.hidden_size, heads, { bias: false });
    this.dense = new Linear(heads * valueDims, args.hidden_size, { bias: false });
  }

  /** x (B, T, D), mask: an array or null → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const out = this.heads(x, mask, cache).transpose(0, 2, 1, 3);
    const gates = this.g_proj.forward(x).astype("float32").sigmoid().astype(out.dtype);
    return this.dense.forward(out.multiply(gates.expandDims(-1)).flatten(-2, -1));
  }

  override shard(split: Split): void {
    super.shard(split, { output: "dense", byHead: ["g_proj"] });
  }
}

class Router extends Module {
  /** (experts, D) */
  weight: Tensor;
  /** Only takes part in the choice, (experts). */
  expert_bias: Tensor;
  readonly #args: Args;

  constructor(args: Args) {
    super();
    this.weight = parameter(mx.zeros([args.num_experts, args.hidden_size]));
    this.expert_bias = parameter(mx.zeros([args.num_experts]));
    this.#args = args;
  }

  forward(x: Tensor): Routing {
    const logits = x.astype("float32").matmul(this.weight.astype("float32").T);
    return routeWithinGroups(logits.sigmoid(), this.expert_bias, {
      expertsPerToken: this.#args.num_experts_per_tok,
      groups: this.#args.n_group,
      groupsPerToken: this.#args.topk_group,
      normalize: true,
      scale: this.#args.routed_scaling_factor,
      unused: -Infinity,
    });
  }
}

class MoE extends Module {
  gate: Router;
  switch_mlp: SwitchGLU;
  shared_experts: GatedMLP;

  constructor(args: Args, index: number) {
    super();
    const activation = swigluWithin(args.expert_swiglu_limit_list?.[index] ?? 0);
    this.gate = new Router(args);
    this.switch_mlp = new SwitchGLU(args.hidden_size, args.moe_intermediate_size, args.num_experts, { activation });
    this.shared_experts = mlpOf(args, args.moe_shared_expert_intermediate_size * args.num_shared_experts, index);
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    const mixed = mixExperts(x, this.switch_mlp, this.gate.forward(x)).astype(x.dtype);
    return mixed.add(this.shared_experts.forward(x));
  }
}

const mlpOf = (args: Args, hidden: number, index: number) =>
  new GatedMLP(args.hidden_size, hidden, {
    activation: swigluWithin(args.share_expert_swiglu_limit_list?.[index] ?? 0),
  });

type HybridCache = KeyValueCache | ArraysCache;

class Block extends Module implements DecoderLayer<HybridCache> {
  attention: DeltaAttention | GatedLatentAttention;
  mlp: Layer;
  input_layernorm: RMSNorm;
  post_attention_layernorm: RMSNorm;
  readonly mask: MaskRule<never>;
  readonly makeCache?: () => HybridCache;

  constructor(args: Args, index: number) {
    super();
    const { hidden_size: D, rms_norm_eps: eps, num_hidden_layers: layers } = args;
    const isDelta = !attendsToAll(index, layers, args.layer_group_size);
    this.attention = isDelta ? new DeltaAttention(args) : new GatedLatentAttention(args);
    this.mlp = index >= args.first_k_dense_replace ? new MoE(args, index) : mlpOf(args, args.intermediate_size, index);
    this.input_layernorm = new RMSNorm(D, eps);
    this.post_attention_layernorm = new RMSNorm(D, eps);
    this.mask = isDelta ? recurrent : fullAttentionArray;
    if (isDelta) this.makeCache = () => new ArraysCache(4);
  }

  forward(x: Residual, mask: Mask, cache?: HybridCache): Residual {
    const branch = x.branch(this.input_layernorm);
    const h = x.plus(
      this.attention instanceof DeltaAttention
        ? this.attention.forward(branch, mask as Tensor | null, cache as ArraysCache | undefined)
        : this.attention.forward(branch, mask, cache as KeyValueCache | undefined),
    );
    return h.plus(this.mlp.forward(h.branch(this.post_attention_layernorm)));
  }
}

export class Model extends CausalLM<HybridCache> {
  readonly #args: Args;

  constructor(args: Args) {
    super(args, (index) => new Block(args, index), { names: { embedding: "word_embeddings" } });
    this.#args = args;
  }

  /** Stacks the experts, turns convolutions, takes keys and values apart, and drops the layers that predict further tokens. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = withoutDraftLayers(super.sanitize(weights), this.layers.length);
    turnConvolutions(sanitized);
    for (const index of this.layers.keys()) {
      const path = `model.layers.${index}`;
      const experts = { count: this.#args.num_experts, from: `${path}.mlp.experts`, to: `${path}.mlp.switch_mlp` };
      stackExperts(sanitized, experts);
      splitKeysValues(sanitized, `${path}.attention`, latentSizes(this.#args));
    }
    return sanitized;
  }
}

const kept =
  /(^model\.word_embeddings|^lm_head|attention\.(q_a_proj|q_b_proj|kv_a_proj_with_mqa|embed_q|unembed_out|b_proj))$/;

/** Latent attention but its last projection, what the delta rule writes by, embedding and head stay as they are. */
export function quantize(path: string, config: Record<string, unknown>): "leave" | undefined {
  const [, index] = /^model\.layers\.(\d+)\.attention\.(?:q_proj|g_proj)$/.exec(path) ?? [];
  if (index === undefined) return kept.test(path) ? "leave" : undefined;
  const { num_hidden_layers, layer_group_size } = Args.parse(config);
  return attendsToAll(Number(index), num_hidden_layers, layer_group_size) ? "leave" : undefined;
}

/** Draft layers see all. */
export const mtp: MtpFacts = {
  sanitize(weights, args: Args) {
    const found = draftTensors(weights, behind(args.num_hidden_layers));
    for (let i = 0; i < depthOf(found); i++) {
      const mlp = `layers.${i}.mlp`;
      stackExperts(found, { count: args.num_experts, from: `${mlp}.experts`, to: `${mlp}.switch_mlp` });
      splitKeysValues(found, `layers.${i}.attention`, latentSizes(args));
    }
    return found;
  },
  head(trunk, args: Args, depth) {
    const blocks = Array.from({ length: depth }, (_, i) => new Block(args, args.num_hidden_layers + i));
    return new LayeredHead(trunk, blocks, args, { names: finalNames });
  },
};

export const joins = [...usualJoins, ...latentJoins];

export const awq = blockAwq({ attention: "attention" });

/** Decays are exp(A) in files, as columns. */
const rates: TensorChange = {
  read: (x) => x.astype("float32").log().flatten(),
  write: (x) => x.astype("float32").exp().expandDims(-1),
};

const named = (names: Readonly<Record<string, string>>) =>
  Object.fromEntries(Object.entries(names).map(([theirs, ours]) => [theirs, ours.replace("self_attn.", "attention.")]));

/** Both kinds of layers have a gate and a last projection, which files or checkpoints call differently. */
function places({ num_hidden_layers: layers, layer_group_size: group }: Args): Record<string, string> {
  const ofLayer = (index: number): [string, string][] => {
    const [gate, output] = attendsToAll(index, layers, group) ? ["attn_gate", "dense"] : ["ssm_g_a", "o_proj"];
    const path = `model.layers.${index}.attention`;
    return [
      [`blk.${index}.${gate}`, `${path}.g_proj`],
      [`blk.${index}.attn_output`, `${path}.${output}`],
    ];
  };
  return Object.fromEntries(Array.from({ length: layers }, (_, index) => ofLayer(index)).flat());
}

/** The distance between layers that attend to all. */
function groupOf(file: GgufDescription, layers: number): number {
  const heads = file.list("attention.head_count_kv") ?? [];
  const sizes = Array.from({ length: layers }, (_, i) => i + 1);
  const fits = (group: number) => sizes.every((_, i) => (heads[i] !== 0) === attendsToAll(i, layers, group));
  return sizes.find(fits) ?? file.wrong("its layers of latent attention do not stand at equal distances");
}

export const gguf = decoder("bailingmoe3", {
  names: new TensorNames(
    {
      ...named({ ...plainLayer, ...latentLayer }),
      ffn_norm: "post_attention_layernorm",
      ...expertLayer("mlp"),
      ...sharedExpert("mlp.shared_experts"),
      ssm_conv1d_q: "attention.q_conv1d",
      ssm_conv1d_k: "attention.k_conv1d",
      ssm_conv1d_v: "attention.v_conv1d",
      ssm_f_a: "attention.f_proj",
      ssm_beta: "attention.b_proj",
      ssm_norm: "attention.o_norm",
    },
    {
      outer: { token_embd: "model.word_embeddings" },
      parameters: {
        ssm_a: "attention.A_log",
        "ssm_dt.bias": "attention.dt_bias",
        "exp_probs_b.bias": "mlp.gate.expert_bias",
      },
      halves: fusedExperts("mlp"),
    },
  ),
  places: (config) => places(config as Args),
  changes: () => ({
    "attention.q_conv1d": channelKernels,
    "attention.k_conv1d": channelKernels,
    "attention.v_conv1d": channelKernels,
    "attention.A_log": rates,
  }),
  ropeBase: 6_000_000,
  turning: (settings) => (settings as unknown as Args).qk_rope_head_dim,
  integers: {
    ...countedExperts,
    expert_shared_feed_forward_length: "moe_shared_expert_intermediate_size",
    leading_dense_block_count: "first_k_dense_replace",
    ...expertGroups,
    "attention.q_lora_rank": "q_lora_rank",
    "attention.kv_lora_rank": "kv_lora_rank",
    "ssm.conv_kernel": "short_conv_kernel_size",
  },
  floats: { expert_weights_scale: "routed_scaling_factor" },
  // llama.cpp's scores have no factor for stretched positions.
  only: { num_shared_experts: 1, rope_scaling: null, norm_topk_prob: true },
  read(file, common) {
    const layers = common.num_hidden_layers as number;
    const turning = file.need("rope.dimension_count");
    if (!normalizes(file)) file.wrong("the weights of a token's experts do not sum to one, which mlxlm needs");
    const limitsOf = (key: string) => file.list(key)?.slice(0, layers).map(precise);
    return {
      partial_rotary_factor: undefined,
      expert_swiglu_limit_list: limitsOf("swiglu_clamp_exp"),
      share_expert_swiglu_limit_list: limitsOf("swiglu_clamp_shexp"),
      layer_group_size: groupOf(file, layers),
      head_dim: file.need("kda.head_dim"),
      kda_lower_bound: precise(file.need("kda.gate_lower_bound")),
      q_lora_rank: common.q_lora_rank ?? null,
      qk_rope_head_dim: turning,
      qk_nope_head_dim: file.need("attention.key_length_mla") - turning,
      v_head_dim: file.need("attention.value_length_mla"),
    };
  },
  write(settings) {
    const args = settings as unknown as Args;
    const { num_hidden_layers: layers, kv_lora_rank: rank, qk_rope_head_dim: turning } = args;
    const all = Array.from({ length: layers }, (_, index) => attendsToAll(index, layers, args.layer_group_size));
    const limitsOf = (given: Args["expert_swiglu_limit_list"]) =>
      given ? f32(all.map((_, index) => given[index] ?? 0)) : undefined;
    return {
      swiglu_clamp_exp: limitsOf(args.expert_swiglu_limit_list),
      swiglu_clamp_shexp: limitsOf(args.share_expert_swiglu_limit_list),
      vocab_size: u32(args.vocab_size),
      "attention.head_count_kv": u32(all.map((is) => (is ? 1 : 0))),
      "attention.key_length": u32(rank + turning),
      "attention.value_length": u32(rank),
      "attention.key_length_mla": u32(args.qk_nope_head_dim + turning),
      "attention.value_length_mla": u32(args.v_head_dim),
      "kda.head_dim": u32(args.head_dim),
      "kda.gate_lower_bound": f32(args.kda_lower_bound),
      "kda.safe_gate": ["bool", true],
      expert_gating_func: u32(gating.sigmoid),
      expert_weights_norm: ["bool", true],
    };
  },
});
