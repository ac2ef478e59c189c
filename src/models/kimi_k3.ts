/**
 * Kimi K3, its language model: Kimi Linear whose layers read a mix of the hidden states at the start of each block of layers,
 * with a gate on latent attention, experts that work in a narrower space, and SiTU in place of SwiGLU.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  type ArraysCache,
  convolve,
  Decoder,
  type ForwardOptions,
  GatedMLP,
  joinHeads,
  type KeyValueCache,
  KimiDelta,
  LatentProjections,
  type Layer,
  Linear,
  latentJoins,
  type Mask,
  Module,
  mixExperts,
  parameter,
  Residual,
  RMSNorm,
  routeWithinGroups,
  type Split,
  SwitchGLU,
  splitKeysValues,
  stackExperts,
  throughLayers,
  usualJoins,
} from "../nn";
import { count, size } from "./args";
import { kimiK3 } from "./gguf/kimi-k3";
import { checkKimiExperts, type HybridCache, KimiBlock, layerKinds, ShortConv } from "./kimi_linear";
import { CausalLM } from "./language-model";
import { NestedLM, nestedArgs } from "./nested";

const positive = z.number().positive();

const TextArgs = z
  .object({
    vocab_size: size.default(163_840),
    hidden_size: size.default(7168),
    num_hidden_layers: size.default(93),
    num_attention_heads: size.default(96),
    intermediate_size: size.default(33_792),
    rms_norm_eps: positive.default(1e-5),
    tie_word_embeddings: z.boolean().default(false),
    linear_attn_config: z.object({
      /** Numbers of the layers of delta attention, from one on. */
      kda_layers: z.array(size),
      num_heads: size,
      head_dim: size,
      short_conv_kernel_size: size,
      /** The logarithm of the least that a token leaves of a channel; none where absent. */
      gate_lower_bound: z.number().negative().nullish(),
      use_full_rank_gate: z.boolean().default(false),
    }),
    hidden_act: z.literal("situ").default("situ"),
    activation_situ_beta: positive.nullish(),
    activation_situ_linear_beta: positive.nullish(),
    /** Layers in a block whose first hidden states all later layers read. Absent: layers read the sum of all, as usual. */
    attn_res_block_size: size.nullish(),
    max_position_embeddings: size.nullish(),
    model_max_length: size.nullish(),
    q_lora_rank: size.nullish(),
    kv_lora_rank: size,
    qk_nope_head_dim: size,
    qk_rope_head_dim: size,
    v_head_dim: size,
    mla_use_nope: z.literal(true).default(true),
    mla_use_output_gate: z.boolean().default(false),
    num_experts: count.default(0),
    num_experts_per_token: size.default(16),
    num_shared_experts: count.default(0),
    moe_intermediate_size: size.nullish(),
    moe_router_activation_func: z.literal("sigmoid").default("sigmoid"),
    moe_renormalize: z.boolean().default(true),
    routed_scaling_factor: z.number().default(1),
    first_k_dense_replace: count.default(0),
    moe_layer_freq: size.default(1),
    num_expert_group: size.default(1),
    topk_group: size.default(1),
    /** Width of the space that experts work in; that of the hidden states where absent. */
    routed_expert_hidden_size: size.nullish(),
    latent_moe_use_norm: z.boolean().default(false),
  })
  .superRefine(checkKimiExperts)
  .superRefine(({ num_experts, moe_intermediate_size: hidden }, context) => {
    if (num_experts === 0 || hidden) return;
    context.addIssue({ code: "custom", path: ["moe_intermediate_size"], message: "is missing" });
  });

type Args = z.infer<typeof TextArgs>;

export const Args = nestedArgs(TextArgs);

/** SiTU: β tanh(gate / β) σ(gate) · x, with x bounded likewise where it has a bound. In float32. */
function situ({ activation_situ_beta, activation_situ_linear_beta: bound }: Args) {
  const beta = activation_situ_beta ?? 1;
  const within = (x: Tensor, limit: number) => x.divide(limit).tanh().multiply(limit);
  return mx.compile(
    (gate: Tensor, x: Tensor) => {
      const [wideGate, wide] = [gate.astype("float32"), x.astype("float32")];
      const open = within(wideGate, beta).multiply(wideGate.sigmoid());
      return open.multiply(bound ? within(wide, bound) : wide).astype(x.dtype);
    },
    { shapeless: true },
  );
}

class DeltaAttention extends KimiDelta {
  declare qkv_proj: Layer;
  declare qkv_conv: ShortConv;
  declare f_a_proj: Layer;
  declare f_b_proj: Layer;
  declare g_proj?: Layer;
  declare g_a_proj?: Layer;
  declare g_b_proj?: Layer;
  readonly stateAt = 1;
  readonly bound: number | null;

  constructor({ hidden_size: dims, rms_norm_eps: eps, linear_attn_config: config }: Args) {
    const { num_heads: heads, head_dim: headDim } = config;
    const inner = heads * headDim;
    const linear = (inputs: number, outputs: number) => new Linear(inputs, outputs, { bias: false });
    super({ dims, heads, headDim, eps }, [heads], () => ({
      qkv_proj: linear(dims, 3 * inner),
      qkv_conv: new ShortConv(3 * inner, config.short_conv_kernel_size),
      f_a_proj: linear(dims, headDim),
      f_b_proj: linear(headDim, inner),
      b_proj: linear(dims, heads),
      ...(config.use_full_rank_gate
        ? { g_proj: linear(dims, inner) }
        : { g_a_proj: linear(dims, headDim), g_b_proj: linear(headDim, inner) }),
    }));
    this.bound = config.gate_lower_bound ?? null;
  }

  protected override convolved(x: Tensor, own: Tensor | null, cache?: ArraysCache): [Tensor, Tensor, Tensor] {
    return convolve(this.qkv_conv.conv, this.qkv_proj.forward(x), own, cache, 0).split(3, -1) as [
      Tensor,
      Tensor,
      Tensor,
    ];
  }

  protected override fading(x: Tensor): Tensor {
    const fading = this.f_b_proj.forward(this.f_a_proj.forward(x));
    return this.bound === null ? fading : fading.astype("float32");
  }

  protected override gates(x: Tensor): Tensor {
    return this.g_proj?.forward(x) ?? this.g_b_proj!.forward(this.g_a_proj!.forward(x));
  }

  protected override decay(fading: Tensor, rates: Tensor): Tensor {
    if (this.bound === null) return super.decay(fading, rates);
    return rates.multiply(fading).sigmoid().multiply(this.bound);
  }
}

const latentSizes = (args: Args) => ({
  dims: args.hidden_size,
  heads: args.num_attention_heads,
  queryRank: args.q_lora_rank ?? null,
  rank: args.kv_lora_rank,
  plainDims: args.qk_nope_head_dim,
  rotatedDims: args.qk_rope_head_dim,
  valueDims: args.v_head_dim,
  bias: false,
});

/** Latent attention without positions, with a gate on its results. */
class LatentAttention extends LatentProjections {
  g_proj?: Layer;

  constructor(args: Args) {
    const sizes = latentSizes(args);
    super(sizes, null, (sizes.plainDims + sizes.rotatedDims) ** -0.5);
    const gated = args.mla_use_output_gate;
    if (gated) this.g_proj = new Linear(sizes.dims, sizes.heads * sizes.valueDims, { bias: false });
  }

  /** x (B, T, D), mask: an array or null → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const out = joinHeads(this.heads(x, mask, cache));
    return this.o_proj.forward(this.g_proj ? out.multiply(this.g_proj.forward(x).sigmoid()) : out);
  }

  override shard(split: Split): void {
    super.shard(split, { byHead: ["g_proj"] });
  }
}

class MoE extends Module {
  gate: Layer;
  switch_mlp: SwitchGLU;
  /** (experts) */
  e_score_correction_bias: Tensor;
  routed_expert_down_proj?: Layer;
  routed_expert_up_proj?: Layer;
  routed_expert_norm?: RMSNorm;
  shared_experts?: GatedMLP;
  readonly #args: Args;

  constructor(args: Args) {
    super();
    const { hidden_size: dims, num_experts: experts, num_shared_experts: shared } = args;
    const { routed_expert_hidden_size: narrow, moe_intermediate_size } = args;
    const hidden = moe_intermediate_size!;
    const activation = situ(args);
    this.gate = new Linear(dims, experts, { bias: false });
    this.switch_mlp = new SwitchGLU(narrow ?? dims, hidden, experts, { activation });
    this.e_score_correction_bias = parameter(mx.zeros([experts]));
    if (narrow) {
      this.routed_expert_down_proj = new Linear(dims, narrow, { bias: false });
      this.routed_expert_up_proj = new Linear(narrow, dims, { bias: false });
      if (args.latent_moe_use_norm) this.routed_expert_norm = new RMSNorm(narrow, args.rms_norm_eps);
    }
    if (shared) this.shared_experts = new GatedMLP(dims, hidden * shared, { activation, downLast: true });
    this.#args = args;
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    const args = this.#args;
    const scores = this.gate.forward(x).astype("float32").sigmoid();
    const { experts, weights } = routeWithinGroups(scores, this.e_score_correction_bias, {
      expertsPerToken: args.num_experts_per_token,
      groups: args.num_expert_group,
      groupsPerToken: args.topk_group,
      normalize: args.moe_renormalize,
      scale: args.routed_scaling_factor,
    });
    const narrowed = this.routed_expert_down_proj?.forward(x) ?? x;
    const mixed = mixExperts(narrowed, this.switch_mlp, { experts, weights: weights.astype(x.dtype) });
    const normed = this.routed_expert_norm?.forward(mixed) ?? mixed;
    const widened = this.routed_expert_up_proj?.forward(normed) ?? normed;
    return this.shared_experts ? widened.add(this.shared_experts.forward(x)) : widened;
  }
}

/** One score for each hidden state. It is never packed: it decides what a layer reads. */
class ScoreProjection extends Module {
  /** (1, D) */
  weight: Tensor;

  constructor(dims: number) {
    super();
    this.weight = parameter(mx.zeros([1, dims]));
  }
}

/**
 * Attention over depth: the hidden states (K, B, T, D) at the starts of K blocks and those at hand (B, T, D), weighted by a
 * softmax over their scores → (B, T, D). In float32. Kimi Team 2026, Attention Residuals.
 */
function mixStates(starts: Tensor | null, x: Tensor, norm: RMSNorm, { weight }: ScoreProjection): Tensor {
  if (!starts) return x;
  const all = mx.concatenate([starts, x.expandDims(0)]).astype("float32");
  const scores = mx.fast.rmsNorm(all, null, norm.eps).matmul(norm.weight.astype("float32").multiply(weight).T);
  return mx.softmax(scores, { axis: 0 }).multiply(all).sum({ axis: 0 }).astype(x.dtype);
}

/** A layer's attention and what follows it, in the order in which their weights are drawn. */
function layerParts(args: Args, index: number): [DeltaAttention | LatentAttention, Layer] {
  const { isDelta, isSparse } = layerKinds(args, index);
  const attention = isDelta ? new DeltaAttention(args) : new LatentAttention(args);
  const dense = { activation: situ(args), downLast: true };
  return [attention, isSparse ? new MoE(args) : new GatedMLP(args.hidden_size, args.intermediate_size, dense)];
}

/** Hidden states with those at the starts of blocks of layers so far, (K, B, T, D); null for none. */
class DepthResidual extends Residual {
  constructor(
    base: Tensor,
    delta: Tensor | null,
    readonly starts: Tensor | null,
  ) {
    super(base, delta);
  }
}

const startsOf = (x: Residual): Tensor | null => (x instanceof DepthResidual ? x.starts : null);

/** A block of which each part reads a mix of the hidden states at hand and at the starts of blocks of layers. */
class MixingBlock extends KimiBlock {
  self_attention_res_proj: ScoreProjection;
  self_attention_res_norm: RMSNorm;
  mlp_res_proj: ScoreProjection;
  mlp_res_norm: RMSNorm;
  readonly isStart: boolean;

  constructor(args: Args, index: number, blockSize: number) {
    super(...layerParts(args, index), args);
    const { hidden_size: D, rms_norm_eps: eps } = args;
    this.self_attention_res_proj = new ScoreProjection(D);
    this.self_attention_res_norm = new RMSNorm(D, eps);
    this.mlp_res_proj = new ScoreProjection(D);
    this.mlp_res_norm = new RMSNorm(D, eps);
    this.isStart = index % blockSize === 0;
  }

  override forward(x: Residual, mask: Mask, cache?: HybridCache): Residual {
    const before = startsOf(x);
    const read = mixStates(before, x.value, this.self_attention_res_norm, this.self_attention_res_proj);
    const attended = this.attend(this.input_layernorm.forward(read), mask, cache);
    // The sum begins anew with each block of layers.
    const [h, starts] = this.isStart ? [attended, appended(before, x.value)] : [x.value.add(attended), before];
    const mixed = mixStates(starts, h, this.mlp_res_norm, this.mlp_res_proj);
    return new DepthResidual(h, this.mlp.forward(this.post_attention_layernorm.forward(mixed)), starts);
  }
}

const appended = (starts: Tensor | null, x: Tensor): Tensor =>
  starts ? mx.concatenate([starts, x.expandDims(0)]) : x.expandDims(0);

class MixingDecoder extends Decoder<HybridCache> {
  output_attn_res_proj: ScoreProjection;
  output_attn_res_norm: RMSNorm;

  constructor(parts: ConstructorParameters<typeof Decoder<HybridCache>>, { hidden_size: D, rms_norm_eps: eps }: Args) {
    super(...parts);
    this.output_attn_res_proj = new ScoreProjection(D);
    this.output_attn_res_norm = new RMSNorm(D, eps);
  }

  override forward(inputs: Tensor, { cache, inputEmbeddings }: ForwardOptions<HybridCache> = {}): Tensor {
    const x = throughLayers(inputEmbeddings ?? this.embedding.forward(inputs), this.layers, cache);
    const mixed = mixStates(startsOf(x), x.value, this.output_attn_res_norm, this.output_attn_res_proj);
    return this.lastNorm.forward(mixed);
  }
}

class TextModel extends CausalLM<HybridCache> {
  readonly #args: Args;

  constructor(args: Args) {
    const blockSize = args.attn_res_block_size;
    super(
      args,
      (index) =>
        blockSize ? new MixingBlock(args, index, blockSize) : new KimiBlock(...layerParts(args, index), args),
      {
        decoder: (...parts) => (blockSize ? new MixingDecoder(parts, args) : new Decoder(...parts)),
      },
    );
    this.#args = args;
  }

  /** Gives experts and convolutions their names here, makes one of queries, keys and values, and takes others apart. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const { num_hidden_layers: layers, num_experts: experts, linear_attn_config: config } = this.#args;
    const sanitized = new Map<string, Tensor>();
    for (const [name, weight] of super.sanitize(weights)) {
      const isOwn = Number(/^model\.layers\.(\d+)\./.exec(name)?.[1] ?? 0) < layers && !/^(model\.)?mtp/.test(name);
      if (isOwn) sanitized.set(...ours(name, weight, config.num_heads));
    }
    for (const index of this.layers.keys()) {
      const path = `model.layers.${index}`;
      const names = { gate_proj: "w1", down_proj: "w2", up_proj: "w3" };
      stackExperts(sanitized, { count: experts, from: `${path}.mlp.experts`, to: `${path}.mlp.switch_mlp`, names });
      splitKeysValues(sanitized, `${path}.self_attn`, latentSizes(this.#args));
      if (!config.kda_layers.includes(index + 1)) continue;
      for (const kind of ["weight", "scales", "biases"]) joinRows(sanitized, `${path}.self_attn`, `_proj.${kind}`);
      joinRows(sanitized, `${path}.self_attn`, "_conv.conv.weight");
    }
    return sanitized;
  }
}

/** Those of queries, keys and values, one below the other. Changes the map. */
function joinRows(weights: Map<string, Tensor>, path: string, rest: string): void {
  const names = ["q", "k", "v"].map((part) => `${path}.${part}${rest}`);
  const parts = names.flatMap((name) => weights.get(name) ?? []);
  if (parts.length < 3) return;
  for (const name of names) weights.delete(name);
  weights.set(`${path}.qkv${rest}`, mx.concatenate(parts));
}

/** A tensor of the original checkpoints under its name here, and in its form. */
function ours(name: string, weight: Tensor, heads: number): [string, Tensor] {
  if (name.endsWith("self_attn.dt_bias")) return [name, weight.flatten()];
  // Heads that only fill the rows of a device are left out.
  if (name.endsWith("self_attn.A_log")) return [name, mx.sliceAxis(weight.flatten(), 0, 0, heads)];
  const convolution = /^(.*\.[qkv]_conv)1d\.weight$/.exec(name);
  if (convolution) return [`${convolution[1]}.conv.weight`, weight.ndim === 3 ? mx.moveaxis(weight, 2, 1) : weight];
  const mixing = /^(.*(?:self_attention_res|mlp_res|output_attn_res))\.(proj|norm)_weight$/.exec(name);
  if (mixing) return [`${mixing[1]}_${mixing[2]}.weight`, weight];
  const here = name
    .replace(".block_sparse_moe.", ".mlp.")
    .replace(/gate\.e_score_correction_bias$/, "e_score_correction_bias");
  if (here.endsWith(".weight_packed")) return [here.replace(/_packed$/, ""), weight.view("uint32")];
  return [here.replace(/\.weight_scale$/, ".scales"), weight];
}

export class Model extends NestedLM {
  constructor(args: Args) {
    super(new TextModel(args));
  }
}

/** The router decides which experts are read: it stays at 8 bits. */
export const quantize = (path: string) => (path.endsWith("mlp.gate") ? { groupSize: 64, bits: 8 } : undefined);

/** What decays and routing are made of is learned in float32. */
export const keepsDtype = (path: string) => /(A_log|dt_bias|e_score_correction_bias)$/.test(path);

export const joins = [...usualJoins, ...latentJoins];

export const gguf = kimiK3((args, index) => layerKinds(args as unknown as Args, index).isDelta);
