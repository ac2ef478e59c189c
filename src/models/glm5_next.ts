/**
 * GLM 5.3 Flash, its language model: Kimi's delta attention with a bound on what fades, every few layers latent attention
 * without positions that sees the pools of tokens that an indexer chooses; several residual streams, mixed anew by each part
 * of a layer; SwiGLU clipped everywhere.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  ArraysCache,
  attentionMask,
  boundedSwiglu,
  type Cache,
  CausalConv1d,
  type CompressedCache,
  Decoder,
  type DecoderLayer,
  type ForwardOptions,
  GatedMLP,
  GroupedRouter,
  HyperConnection,
  type KeyValueCache,
  KimiDeltaAttention,
  KVCache,
  LatentProjections,
  type Layer,
  Linear,
  LoneCacheList,
  latentJoins,
  type Mask,
  type MaskRule,
  Module,
  noMask,
  PoolIndexer,
  Residual,
  RMSNorm,
  type Routing,
  remember,
  routeWithinGroups,
  SwitchGLU,
  splitKeysValues,
  stackExperts,
  streamsOf,
  takeChosen,
  throughLayers,
  turnConvolutions,
  usualJoins,
} from "../nn";
import { count, size, trunkFields } from "./args";
import * as deepseek from "./deepseek_v3";
import { rowByRow } from "./deepseek_v41";
import { glm5Next } from "./gguf/glm5-next";
import { CausalLM } from "./language-model";
import { withoutDraftLayers } from "./mtp/draft-layers";
import { NestedLM, nestedArgs } from "./nested";

const LayerType = z.enum(["linear_attention", "indexed_attention", "deepseek_sparse_attention", "full_attention"]);

const TextArgs = z
  .object({
    ...trunkFields,
    tie_word_embeddings: z.boolean().default(false),
    rms_norm_eps: z.number().positive().default(1e-5),
    intermediate_size: size,
    moe_intermediate_size: size,
    num_attention_heads: size,
    n_shared_experts: size.default(1),
    n_routed_experts: size,
    num_experts_per_tok: size,
    routed_scaling_factor: z.number().default(2.5),
    norm_topk_prob: z.boolean().default(true),
    n_group: size.default(1),
    topk_group: size.default(1),
    first_k_dense_replace: count.default(3),
    mlp_layer_types: z.array(z.enum(["dense", "sparse"])).nullish(),
    /** Three of delta attention to one that sees all, where absent. */
    layer_types: z.array(LayerType).nullish(),
    kv_lora_rank: size.default(512),
    q_lora_rank: size,
    /** Nothing turns. */
    qk_rope_head_dim: z.literal(0).default(0),
    qk_nope_head_dim: size.default(256),
    v_head_dim: size.default(256),
    attention_bias: z.boolean().default(false),
    index_topk: size.default(2048),
    index_head_dim: size.default(128),
    index_n_heads: size.default(32),
    /** How many tokens a pool has. */
    index_kpool: size.default(16),
    index_kpool_always_select_tail: z.literal(true).default(true),
    /** Layers that share the choice of an earlier one are not supported. */
    index_topk_freq: z.literal(1).nullish(),
    indexer_types: z.array(z.string()).nullish(),
    index_topk_pattern: z.union([z.string(), z.array(z.string())]).nullish(),
    linear_head_dim: size.default(128),
    linear_num_heads: size.default(64),
    linear_conv_kernel_dim: size.default(4),
    /** The least that the logarithm of what is left can be; none where null. */
    linear_lower_bound: z.number().negative().nullable().default(-5),
    /** The same by older names. */
    linear_attn_config: z
      .object({
        head_dim: size,
        num_heads: size,
        short_conv_kernel_size: size,
        gate_lower_bound: z.number().negative().nullable(),
      })
      .partial()
      .nullish(),
    swiglu_limit: z.number().nonnegative().default(10),
    hc_mult: size.default(4),
    hc_eps: z.number().positive().default(1e-6),
    hc_sinkhorn_iters: size.default(20),
  })
  .superRefine(deepseek.checkExperts)
  .superRefine((args, context) => {
    const problem = (field: string, message: string) => context.addIssue({ code: "custom", path: [field], message });
    const { num_hidden_layers: layers, index_topk: chosen, index_kpool: pool } = args;
    for (const field of ["layer_types", "mlp_layer_types"] as const) {
      const length = args[field]?.length ?? layers;
      if (length !== layers) problem(field, `has ${length} entries, but "num_hidden_layers" is ${layers}`);
    }
    const modes = args.indexer_types ?? args.index_topk_pattern ?? [];
    if ([...modes].some((mode, i) => ["shared", "S"].includes(mode) && !isDelta(args, i)))
      problem("indexer_types", "names layers that share the choice of an earlier one, which are not supported");
    if (chosen % pool !== 0) problem("index_topk", `is ${chosen}, but must be a multiple of "index_kpool" (${pool})`);
  })
  .transform(({ linear_attn_config: older, ...args }) => ({
    ...args,
    linear_head_dim: older?.head_dim ?? args.linear_head_dim,
    linear_num_heads: older?.num_heads ?? args.linear_num_heads,
    linear_conv_kernel_dim: older?.short_conv_kernel_size ?? args.linear_conv_kernel_dim,
    linear_lower_bound: older?.gate_lower_bound ?? args.linear_lower_bound,
  }));

/** Whether a layer has delta attention. */
const isDelta = ({ layer_types: types }: { layer_types?: string[] | null }, index: number): boolean =>
  types ? types[index] === "linear_attention" : index % 4 !== 3;

export const Args = nestedArgs(TextArgs);

type Args = z.infer<typeof TextArgs>;

class DeltaAttention extends KimiDeltaAttention {
  q_conv1d: CausalConv1d;
  k_conv1d: CausalConv1d;
  v_conv1d: CausalConv1d;
  f_a_proj: Layer;
  f_b_proj: Layer;
  g_a_proj: Layer;
  g_b_proj: Layer;
  readonly bound: number | null;

  constructor(args: Args) {
    const { hidden_size: dims, linear_num_heads: heads, linear_head_dim: headDim, rms_norm_eps: eps } = args;
    super({ dims, heads, headDim, eps }, [heads]);
    const inner = heads * headDim;
    const convolution = () => new CausalConv1d(inner, args.linear_conv_kernel_dim, { bias: false });
    const linear = (inputs: number, outputs: number) => new Linear(inputs, outputs, { bias: false });
    this.q_conv1d = convolution();
    this.k_conv1d = convolution();
    this.v_conv1d = convolution();
    this.f_a_proj = linear(dims, headDim);
    this.f_b_proj = linear(headDim, inner);
    this.g_a_proj = linear(dims, headDim);
    this.g_b_proj = linear(headDim, inner);
    this.bound = args.linear_lower_bound;
  }

  protected override convolutions() {
    return [this.q_conv1d, this.k_conv1d, this.v_conv1d] as const;
  }

  protected override fading(x: Tensor): Tensor {
    return this.f_b_proj.forward(this.f_a_proj.forward(x)).astype("float32");
  }

  protected override decay(fading: Tensor, rates: Tensor): Tensor {
    return this.bound === null ? super.decay(fading, rates) : rates.multiply(fading).sigmoid().multiply(this.bound);
  }

  protected override gates(x: Tensor): Tensor {
    return this.g_b_proj.forward(this.g_a_proj.forward(x)).astype("float32");
  }
}

const latentSizes = (args: Args) => ({ ...deepseek.attentionSizes(args), eps: args.rms_norm_eps });

class PooledLatentAttention extends LatentProjections {
  indexer: PoolIndexer;

  constructor(args: Args) {
    super(latentSizes(args), null, args.qk_nope_head_dim ** -0.5);
    const { hidden_size: dims, q_lora_rank: queryRank, index_n_heads: heads, index_head_dim: headDim } = args;
    this.indexer = new PoolIndexer({ dims, queryRank, heads, headDim, topK: args.index_topk }, args.index_kpool);
  }

  /** x (B, T, D), mask: an array or null → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: CompressedCache): Tensor {
    const [tokens, pools, open] = (cache?.parts ?? []) as [KeyValueCache?, KeyValueCache?, ArraysCache?];
    const offset = (tokens?.offset ?? 0) as number;
    const own = this.project(x, offset);
    const all = { ...own, ...remember(own, tokens) };
    const chosen = this.indexer.choose(x, own.latentQueries!, offset, pools, open);
    // Otherwise what the indexer holds would stay a graph that grows with each step.
    if (pools) [all.latent] = mx.depends([all.latent], heldBy([pools, open!])) as [Tensor];
    if (!chosen) return this.attend(all, mask);
    return x.dim(1) > 1 ? this.attend(all, chosen) : this.attend(...takeChosen(all, chosen, mask));
  }
}

const heldBy = (caches: readonly Cache[]): Tensor[] =>
  mx.treeFlatten(caches.map(({ state }) => state) as mx.Tree).map(([, tensor]) => tensor);

/** Scores in float32 from the start. */
class Router extends GroupedRouter {
  override forward(x: Tensor): Routing {
    const logits = x.astype("float32").matmul(this.weight.astype("float32").T);
    return routeWithinGroups(logits.sigmoid(), this.e_score_correction_bias, this.options);
  }
}

class MoE extends deepseek.MoE {
  constructor(args: Args) {
    super(args, args.n_routed_experts);
    for (const part of [this.gate, this.switch_mlp, this.shared_experts]) part?.dispose();
    this.gate = new Router(this.gate.options);
    const { hidden_size: dims, moe_intermediate_size: hidden, swiglu_limit: limit } = args;
    this.switch_mlp = new SwitchGLU(dims, hidden, args.n_routed_experts, { activation: boundedSwiglu(limit) });
    this.shared_experts = mlpOf(args, hidden * args.n_shared_experts);
  }
}

const mlpOf = ({ hidden_size: dims, swiglu_limit: limit }: Args, hidden: number): Layer =>
  new GatedMLP(dims, hidden, { downLast: true, activation: boundedSwiglu(limit) });

function feedForward(args: Args, index: number): Layer {
  const { mlp_layer_types: types, first_k_dense_replace: dense } = args;
  const isSparse = types ? types[index] === "sparse" : index >= dense;
  return isSparse ? new MoE(args) : mlpOf(args, args.intermediate_size);
}

/** Of rows that are kept apart: no token is padding. */
const sparseMask: MaskRule<CompressedCache> = {
  key: "sparse",
  make: (h, cache) => attentionMask(h, cache?.parts[0] as KeyValueCache, { asArray: true }),
};

class Block extends Module implements DecoderLayer<CompressedCache> {
  self_attn: DeltaAttention | PooledLatentAttention;
  mlp: Layer;
  input_layernorm: RMSNorm;
  post_attention_layernorm: RMSNorm;
  attn_hc: HyperConnection;
  ffn_hc: HyperConnection;
  readonly mask: MaskRule<CompressedCache>;

  constructor(args: Args, index: number) {
    super();
    const { hidden_size: dims, rms_norm_eps: eps, hc_mult: streams, hc_sinkhorn_iters: rounds, hc_eps } = args;
    const delta = isDelta(args, index);
    this.self_attn = delta ? new DeltaAttention(args) : new PooledLatentAttention(args);
    this.mlp = feedForward(args, index);
    this.input_layernorm = new RMSNorm(dims, eps);
    this.post_attention_layernorm = new RMSNorm(dims, eps);
    const connection = { dims, streams, rounds, eps: hc_eps, normEps: eps };
    this.attn_hc = new HyperConnection(connection);
    this.ffn_hc = new HyperConnection(connection);
    this.mask = delta ? noMask : sparseMask;
  }

  /** The stream is (B, T, S, D). */
  forward(x: Residual, mask: Mask, cache?: CompressedCache): Residual {
    const attended = this.attn_hc.around(x.value, (read) => {
      const normed = this.input_layernorm.forward(read);
      return this.self_attn instanceof DeltaAttention
        ? this.self_attn.forward(normed, null, cache?.parts[0] as ArraysCache | undefined)
        : this.self_attn.forward(normed, mask, cache);
    });
    const fed = this.ffn_hc.around(attended, (read) => this.mlp.forward(this.post_attention_layernorm.forward(read)));
    return new Residual(fed);
  }

  makeCache(): CompressedCache {
    return new LoneCacheList<Cache>(
      this.self_attn instanceof DeltaAttention
        ? [new ArraysCache(4)]
        : [new KVCache(), new KVCache(), new ArraysCache(2)],
    );
  }
}

class StreamDecoder extends Decoder<CompressedCache> {
  constructor(
    readonly streams: number,
    ...parts: ConstructorParameters<typeof Decoder<CompressedCache>>
  ) {
    super(...parts);
  }

  override stream(inputs: Tensor, { cache, inputEmbeddings }: ForwardOptions<CompressedCache> = {}): Residual {
    const x = streamsOf(inputEmbeddings ?? this.embedding.forward(inputs), this.streams);
    return new Residual(throughLayers(x, this.layers, cache).value.mean({ axis: 2 }));
  }
}

class TextModel extends CausalLM<CompressedCache> {
  readonly #args: Args;

  constructor(args: Args) {
    super(args, (index) => new Block(args, index), {
      decoder: (...parts) => new StreamDecoder(args.hc_mult, ...parts),
    });
    this.#args = args;
  }

  /** Rows of a batch have pools that end at other tokens: they are read one after the other. */
  override forward(inputs: Tensor, options: ForwardOptions<CompressedCache> = {}): Tensor {
    return rowByRow(inputs, options, this.vocabSize, (row, own) => super.forward(row, own));
  }

  /** Takes apart what other programs join, and keys and values; stacks the experts; drops the layers for drafts. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const args = this.#args;
    const named = [...super.sanitize(weights)].map(([name, weight]): [string, Tensor] => [
      name.replace(/\.hc_(attn|ffn)_(fn|base|scale)$/, ".$1_hc.$2"),
      weight,
    ]);
    const sanitized = withoutDraftLayers(new Map(named), args.num_hidden_layers);
    turnConvolutions(sanitized);
    const inner = args.linear_num_heads * args.linear_head_dim;
    for (const layer of this.layers.keys()) {
      const [mlp, attention] = [`model.layers.${layer}.mlp`, `model.layers.${layer}.self_attn`];
      stackExperts(sanitized, { count: args.n_routed_experts, from: `${mlp}.experts`, to: `${mlp}.switch_mlp` });
      takeApart(sanitized, `${attention}.qkv_proj`, ["q_proj", "k_proj", "v_proj"], [inner, inner, inner]);
      takeApart(sanitized, `${attention}.qkv_conv.conv`, ["q_conv1d", "k_conv1d", "v_conv1d"], [inner, inner, inner]);
      const narrow = [args.linear_head_dim, args.linear_num_heads, args.linear_head_dim];
      takeApart(sanitized, `${attention}.fbg_a_proj`, ["f_a_proj", "b_proj", "g_a_proj"], narrow);
      const latent = [args.q_lora_rank, args.kv_lora_rank];
      takeApart(sanitized, `${attention}.qkv_a_proj`, ["q_a_proj", "kv_a_proj_with_mqa"], latent);
      for (const [path, hidden] of [
        [mlp, args.intermediate_size],
        [`${mlp}.shared_experts`, args.moe_intermediate_size * args.n_shared_experts],
      ] as const) {
        takeApart(sanitized, `${path}.gate_up_proj`, ["gate_proj", "up_proj"], [hidden, hidden]);
      }
      splitKeysValues(sanitized, attention, latentSizes(args));
    }
    return sanitized;
  }
}

/** Layers whose rows another program put one behind the other, of so many each. Changes the map. */
function takeApart(
  weights: Map<string, Tensor>,
  path: string,
  names: readonly string[],
  rows: readonly number[],
): void {
  const ends = rows.slice(0, -1).map((_, i) => rows.slice(0, i + 1).reduce((sum, count) => sum + count, 0));
  const holder = path.replace(/\.(\w+|qkv_conv\.conv)$/, "");
  for (const kind of ["weight", "scales", "biases", "bias"]) {
    const joint = weights.get(`${path}.${kind}`);
    if (!joint) continue;
    weights.delete(`${path}.${kind}`);
    for (const [i, part] of joint.split(ends, 0).entries()) {
      weights.set(`${holder}.${names[i]}.${kind}`, mx.contiguous(part));
    }
  }
}

export class Model extends NestedLM {
  constructor(args: Args) {
    super(new TextModel(args));
  }
}

export const joins = [...usualJoins, ...latentJoins];

/** What is learned in float32. */
export const keepsDtype = (path: string) => /\.(attn_hc|ffn_hc)\.|(e_score_correction_bias|A_log|dt_bias)$/.test(path);

export const gguf = glm5Next(isDelta);
