/**
 * DeepSeek V4: several residual streams, mixed anew by each part of a layer; attention to the latest tokens and to groups of
 * older ones, light groups that an indexer chooses or heavy ones that are all seen; experts by the root of a softplus, in the
 * first layers by a table of tokens.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  attentionMask,
  boundedSwiglu,
  type CompressedCache,
  Decoder,
  type DecoderLayer,
  type ForwardOptions,
  GatedMLP,
  HyperConnection,
  highest,
  type KeyValueCache,
  layerMasks,
  type Mask,
  type MaskRule,
  Module,
  mixExperts,
  PooledAttention,
  parameter,
  Residual,
  RMSNorm,
  type Routing,
  readStreams,
  SwitchGLU,
  stackExperts,
  streamsOf,
  usualJoins,
} from "../nn";
import { checkExperts, count, size } from "./args";
import { frequenciesOf, ropeAndStreams, rowByRow } from "./deepseek_v41";
import { decoder, precise, routedExperts } from "./gguf/decoder";
import { checkIndexerWidth, gating } from "./gguf/deepseek2";
import { f32, u32 } from "./gguf/facts";
import { connectionNames, fusedExperts, sharedExpert, TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { CausalLM } from "./language-model";
import { withoutDraftLayers } from "./mtp/draft-layers";
import { withoutPrefix } from "./nested";

const positive = z.number().positive();

/** What layers attend to beside the window, and how many tokens a group has. */
const usualRates = { compressed_sparse_attention: 4, heavily_compressed_attention: 128 };

const LayerType = z.enum(["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"]);

type LayerType = z.infer<typeof LayerType>;

export const Args = z
  .object({
    vocab_size: size.default(129_280),
    hidden_size: size.default(4096),
    num_hidden_layers: size.default(43),
    num_attention_heads: size.default(64),
    head_dim: size.default(512),
    q_lora_rank: size.default(1024),
    qk_rope_head_dim: size.default(64),
    /** Groups of heads that have a projection of their own ahead of the common one, and its width. */
    o_groups: size.default(8),
    o_lora_rank: size.default(1024),
    attention_bias: z.boolean().default(false),
    moe_intermediate_size: size.default(2048),
    n_routed_experts: size.default(256),
    n_shared_experts: size.default(1),
    num_experts_per_tok: size.default(6),
    /** How many of the first layers choose experts by a table of tokens; or what each layer does. */
    num_hash_layers: count.default(3),
    mlp_layer_types: z.array(z.enum(["hash_moe", "moe"])).nullish(),
    scoring_func: z.enum(["sqrtsoftplus", "sigmoid", "softmax"]).default("sqrtsoftplus"),
    norm_topk_prob: z.boolean().default(true),
    routed_scaling_factor: z.number().default(1.5),
    swiglu_limit: z.number().nonnegative().default(10),
    rms_norm_eps: positive.default(1e-6),
    sliding_window: size.default(128),
    /** By layer, how many tokens make a group: 4 where an indexer chooses, 0 where only the window is seen. */
    compress_ratios: z.array(count).nullish(),
    /** The same by name, with how many tokens make a group. */
    layer_types: z.array(LayerType).nullish(),
    compress_rates: z.partialRecord(LayerType, size).nullish(),
    compress_rope_theta: positive.default(160_000),
    index_n_heads: size.default(64),
    index_head_dim: size.default(128),
    index_topk: size.default(512),
    ...ropeAndStreams,
  })
  .superRefine(checkExperts("num_experts_per_tok", "n_routed_experts"))
  .superRefine((args, context) => {
    const problem = (field: string, message: string) => context.addIssue({ code: "custom", path: [field], message });
    const { num_attention_heads: heads, o_groups: groups, qk_rope_head_dim: rotated, num_hidden_layers: layers } = args;
    if (heads % groups !== 0) problem("o_groups", `is ${groups}, but must divide "num_attention_heads" (${heads})`);
    const narrowest = Math.min(args.head_dim, args.index_head_dim);
    if (rotated > narrowest) problem("qk_rope_head_dim", `is ${rotated}, but a head has ${narrowest} features`);
    for (const field of ["compress_ratios", "layer_types", "mlp_layer_types"] as const) {
      const length = args[field]?.length ?? layers;
      // Layers that predict further tokens may be counted too.
      if (length < layers) problem(field, `has ${length} entries, but "num_hidden_layers" is ${layers}`);
    }
  });

type Args = z.infer<typeof Args>;

/** What a layer attends to beside the window. */
function typeOf(args: Args, index: number): LayerType {
  const { layer_types: types, compress_ratios: ratios, num_hidden_layers: layers } = args;
  if (types) return types[index]!;
  const ratio = ratios ? ratios[index]! : usualRatio(index, layers);
  if (ratio === 0) return "sliding_attention";
  return ratio === usualRates.compressed_sparse_attention
    ? "compressed_sparse_attention"
    : "heavily_compressed_attention";
}

/** Light groups and heavy ones by turns, but for the first and the last layer. */
const usualRatio = (index: number, layers: number): number =>
  index === 0 || index === layers - 1 ? 0 : index % 2 === 0 ? 4 : 128;

function ratioOf(args: Args, index: number): number {
  const type = typeOf(args, index);
  if (type === "sliding_attention") return 0;
  if (args.layer_types) return args.compress_rates?.[type] ?? usualRates[type];
  return args.compress_ratios?.[index] ?? usualRatio(index, args.num_hidden_layers);
}

/** The attention of a layer. */
function attentionOf(args: Args, index: number): PooledAttention {
  const ratio = ratioOf(args, index);
  const chooses = typeOf(args, index) === "compressed_sparse_attention";
  return new PooledAttention({
    dims: args.hidden_size,
    heads: args.num_attention_heads,
    headDim: args.head_dim,
    queryRank: args.q_lora_rank,
    rotatedDims: args.qk_rope_head_dim,
    frequencies: frequenciesOf(args, ratio),
    outputGroups: args.o_groups,
    outputRank: args.o_lora_rank,
    bias: args.attention_bias,
    eps: args.rms_norm_eps,
    ratio,
    indexer: chooses ? { heads: args.index_n_heads, headDim: args.index_head_dim, topK: args.index_topk } : null,
  });
}

/** Whether a layer chooses experts by a table of tokens. */
const hashes = (args: Args, index: number): boolean =>
  args.mlp_layer_types ? args.mlp_layer_types[index] === "hash_moe" : index < args.num_hash_layers;

class Router extends Module {
  /** (experts, D) */
  weight: Tensor;
  /** The experts of each token of the vocabulary, (V, k), int32. */
  tid2eid?: Tensor;
  /** Only takes part in the choice, (experts). */
  e_score_correction_bias?: Tensor;

  constructor(
    readonly args: Args,
    byToken: boolean,
  ) {
    super();
    const { n_routed_experts: experts, hidden_size, vocab_size, num_experts_per_tok: k } = args;
    this.weight = parameter(mx.zeros([experts, hidden_size]));
    if (byToken) this.tid2eid = parameter(mx.zeros([vocab_size, k], "int32"));
    else this.e_score_correction_bias = parameter(mx.zeros([experts]));
  }

  /** x (B, T, D), token ids (B, T) → (B, T, k) each */
  forward(x: Tensor, ids: Tensor): Routing {
    const { scoring_func, num_experts_per_tok: k, norm_topk_prob, routed_scaling_factor } = this.args;
    const logits = x.matmul(this.weight.T).astype("float32");
    const scored = {
      sigmoid: () => logits.sigmoid(),
      softmax: () => mx.softmax(logits, { axis: -1 }),
      sqrtsoftplus: () => mx.logaddexp(logits, 0).sqrt(),
    };
    const scores = scored[scoring_func]();
    const experts = this.tid2eid ? this.tid2eid.take(ids, 0) : highest(scores.add(this.e_score_correction_bias!), k);
    const chosen = scores.takeAlongAxis(experts, -1);
    const sum = () => chosen.sum({ axis: -1, keepdims: true }).add(least);
    const weights = scoring_func !== "softmax" && norm_topk_prob ? chosen.divide(sum()) : chosen;
    return { experts, weights: weights.multiply(routed_scaling_factor).astype(x.dtype) };
  }
}

/** Far below any score: no sum of weights is zero. */
const least = 1e-20;

class MoE extends Module {
  gate: Router;
  switch_mlp: SwitchGLU;
  shared_experts: GatedMLP;

  constructor(args: Args, index: number) {
    super();
    const { hidden_size: dims, moe_intermediate_size: hidden } = args;
    const activation = boundedSwiglu(args.swiglu_limit);
    this.gate = new Router(args, hashes(args, index));
    this.switch_mlp = new SwitchGLU(dims, hidden, args.n_routed_experts, { activation });
    this.shared_experts = new GatedMLP(dims, hidden * args.n_shared_experts, { activation, downLast: true });
  }

  /** x (B, T, D), token ids (B, T) → (B, T, D) */
  forward(x: Tensor, ids: Tensor): Tensor {
    const mixed = mixExperts(x, this.switch_mlp, this.gate.forward(x, ids));
    return mixed.add(this.shared_experts.forward(x));
  }
}

class Block extends Module implements DecoderLayer<CompressedCache> {
  attn: PooledAttention;
  ffn: MoE;
  attn_norm: RMSNorm;
  ffn_norm: RMSNorm;
  attn_hc: HyperConnection;
  ffn_hc: HyperConnection;
  readonly mask: MaskRule<CompressedCache>;
  readonly window: number;

  constructor(args: Args, index: number) {
    super();
    const { hidden_size: dims, rms_norm_eps: eps, sliding_window: window } = args;
    this.attn = attentionOf(args, index);
    this.ffn = new MoE(args, index);
    this.attn_norm = new RMSNorm(dims, eps);
    this.ffn_norm = new RMSNorm(dims, eps);
    const { hc_mult: streams, hc_sinkhorn_iters: rounds, hc_eps } = args;
    const connection = { dims, streams, rounds, eps: hc_eps, normEps: eps };
    this.attn_hc = new HyperConnection(connection);
    this.ffn_hc = new HyperConnection(connection);
    this.window = window;
    this.mask = {
      key: "latest tokens",
      make: (h, cache) => attentionMask(h, cache?.parts[0] as KeyValueCache, { window, asArray: true }),
    };
  }

  /** The stream is (B, T, S, D). @param ids the tokens (B, T), by which some layers choose experts */
  forward(x: Residual, mask: Mask, cache?: CompressedCache, ids?: Tensor): Residual {
    const attended = this.attn_hc.around(x.value, (read) =>
      this.attn.forward(this.attn_norm.forward(read), mask, cache),
    );
    return new Residual(this.ffn_hc.around(attended, (read) => this.ffn.forward(this.ffn_norm.forward(read), ids!)));
  }

  makeCache(): CompressedCache {
    return this.attn.makeCache(this.window);
  }
}

/** How the last norm reads the streams. */
class HyperHead extends Module {
  fn: Tensor;
  base: Tensor;
  scale: Tensor;

  constructor(readonly args: Args) {
    super();
    const { hc_mult: S, hidden_size: D } = args;
    this.fn = parameter(mx.zeros([S, S * D]));
    this.base = parameter(mx.zeros([S]));
    this.scale = parameter(mx.ones([1]));
  }

  /** streams (B, T, S, D) → (B, T, D) */
  forward(streams: Tensor): Tensor {
    const { rms_norm_eps, hc_eps } = this.args;
    const flat = mx.fast.rmsNorm(streams.flatten(-2).astype("float32"), null, rms_norm_eps);
    const weights = flat.matmul(this.fn.T).multiply(this.scale).add(this.base).sigmoid();
    return readStreams(streams, weights.add(hc_eps));
  }
}

class StreamDecoder extends Decoder<CompressedCache> {
  hc_head: HyperHead;

  constructor(
    readonly args: Args,
    ...parts: ConstructorParameters<typeof Decoder<CompressedCache>>
  ) {
    super(...parts);
    this.hc_head = new HyperHead(args);
  }

  override stream(inputs: Tensor, { cache, inputEmbeddings }: ForwardOptions<CompressedCache> = {}): Residual {
    const x = inputEmbeddings ?? this.embedding.forward(inputs);
    const streams = streamsOf(x, this.args.hc_mult);
    const blocks = this.layers as Block[];
    const rules = blocks.map(({ mask }) => mask);
    const masks = layerMasks(x, rules, cache);
    const out = blocks.reduce((h, block, i) => block.forward(h, masks[i]!, cache?.[i], inputs), new Residual(streams));
    return new Residual(this.hc_head.forward(out.value));
  }
}

export class Model extends CausalLM<CompressedCache> {
  readonly #args: Args;

  constructor(args: Args) {
    const trunk = { ...args, tie_word_embeddings: false };
    super(trunk, (index) => new Block(args, index), { decoder: (...parts) => new StreamDecoder(args, ...parts) });
    this.#args = args;
  }

  /** Rows of a batch have groups that end at other tokens: they are read one after the other. */
  override forward(inputs: Tensor, options: ForwardOptions<CompressedCache> = {}): Tensor {
    return rowByRow(inputs, options, this.vocabSize, (row, own) => super.forward(row, own));
  }

  /** Gives a published checkpoint's tensors their names here, stacks the experts, and drops the layers for drafts. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const { n_routed_experts: experts, o_groups: groups, num_hidden_layers: layers } = this.#args;
    const published = [...withoutPrefix(weights)].filter(([name]) => !/^(mtp|vision|aligner)\.|\.bias_vl$/.test(name));
    const own = new Map(published.map(([name, weight]): [string, Tensor] => [ownName(name), weight]));
    const sanitized = withoutDraftLayers(super.sanitize(own), layers);
    for (const [name, weight] of sanitized) {
      // MLX checks no bounds where it takes rows.
      if (name.endsWith("tid2eid")) sanitized.set(name, mx.clip(weight.astype("int32"), 0, experts - 1));
      if (/\.wo_a\.\w+$/.test(name) && weight.ndim === 2) sanitized.set(name, weight.unflatten(0, [groups, -1]));
    }
    for (let layer = 0; layer < layers; layer++) {
      const ffn = `model.layers.${layer}.ffn`;
      const names = { gate_proj: "w1", down_proj: "w2", up_proj: "w3" };
      stackExperts(sanitized, { count: experts, from: `${ffn}.experts`, to: `${ffn}.switch_mlp`, names });
    }
    return sanitized;
  }
}

/** What stands in the names of published checkpoints, and in ours. */
const names: readonly (readonly [RegExp, string])[] = [
  [/^embed\./, "model.embed_tokens."],
  [/^norm\./, "model.norm."],
  [/^head\./, "lm_head."],
  [/^hc_head_/, "model.hc_head."],
  [/^layers\./, "model.layers."],
  [/\.hc_(attn|ffn)_/, ".$1_hc."],
  [/\.ffn\.gate\.bias$/, ".ffn.gate.e_score_correction_bias"],
  [/\.shared_experts\.w1\./, ".shared_experts.gate_proj."],
  [/\.shared_experts\.w2\./, ".shared_experts.down_proj."],
  [/\.shared_experts\.w3\./, ".shared_experts.up_proj."],
];

const ownName = (name: string): string => names.reduce((path, [theirs, ours]) => path.replace(theirs, ours), name);

/** What is learned in float32. */
export const keepsDtype = (path: string) =>
  /\.(attn_hc|ffn_hc|hc_head)\.|\.ape$|(attn_sink|e_score_correction_bias)$/.test(path);

export const joins = usualJoins;

const compressorNames = (file: string, own: string) => ({
  layer: { [`${file}_kv`]: `${own}.wkv`, [`${file}_gate`]: `${own}.wgate`, [`${file}_norm`]: `${own}.norm` },
  parameters: { [`${file}_ape.weight`]: `${own}.ape` },
});

const groupNames = compressorNames("attn_compressor", "attn.compressor");
const keyNames = compressorNames("indexer_compressor", "attn.indexer.compressor");

/** llama.cpp's kernels have this many streams, and these lengths of groups. */
const publishedStreams = 4;
const publishedRates: Readonly<Record<LayerType, number>> = { sliding_attention: 0, ...usualRates };

export const gguf = decoder("deepseek4", {
  names: new TensorNames(
    {
      attn_norm: "attn_norm",
      ffn_norm: "ffn_norm",
      attn_q_a: "attn.wq_a",
      attn_q_a_norm: "attn.q_norm",
      attn_q_b: "attn.wq_b",
      attn_kv: "attn.wkv",
      attn_kv_a_norm: "attn.kv_norm",
      attn_output_a: "attn.wo_a",
      attn_output_b: "attn.wo_b",
      ...groupNames.layer,
      "indexer.attn_q_b": "attn.indexer.wq_b",
      "indexer.proj": "attn.indexer.weights_proj",
      ...keyNames.layer,
      ffn_gate_inp: "ffn.gate",
      ffn_gate_exps: "ffn.switch_mlp.gate_proj",
      ffn_up_exps: "ffn.switch_mlp.up_proj",
      ffn_down_exps: "ffn.switch_mlp.down_proj",
      ...sharedExpert("ffn.shared_experts"),
    },
    {
      parameters: {
        "attn_sinks.weight": "attn.attn_sink",
        ...groupNames.parameters,
        ...keyNames.parameters,
        ...connectionNames((part) => `${part}_hc.`),
        "exp_probs_b.bias": "ffn.gate.e_score_correction_bias",
        // Of tokens that are parts of pictures.
        "exp_probs_b_vl.bias": "ffn.gate.bias_vl",
        "ffn_gate_tid2eid.weight": "ffn.gate.tid2eid",
      },
      outerParameters: Object.fromEntries(
        ["fn", "base", "scale"].map((own) => [`output_hc_${own}.weight`, `model.hc_head.${own}`]),
      ),
      halves: fusedExperts("ffn"),
    },
  ),
  // Files have the groups of heads above each other, as checkpoints do; `sanitize` takes them apart.
  changes: () => ({ "attn.wo_a": { read: (x) => x, write: (x) => x.flatten(0, 1) } }),
  turning: (settings) => (settings as unknown as Args).qk_rope_head_dim,
  integers: {
    ...routedExperts,
    "attention.q_lora_rank": "q_lora_rank",
    "attention.sliding_window": "sliding_window",
    "attention.output_group_count": "o_groups",
    "attention.output_lora_rank": "o_lora_rank",
    "attention.indexer.head_count": "index_n_heads",
    "attention.indexer.key_length": "index_head_dim",
    "attention.indexer.top_k": "index_topk",
    "hyper_connection.count": "hc_mult",
    "hyper_connection.sinkhorn_iterations": "hc_sinkhorn_iters",
    hash_layer_count: "num_hash_layers",
  },
  floats: {
    expert_weights_scale: "routed_scaling_factor",
    "attention.compress_rope_freq_base": "compress_rope_theta",
    "hyper_connection.epsilon": "hc_eps",
  },
  flags: { expert_weights_norm: "norm_topk_prob" },
  only: { attention_bias: false, scoring_func: "sqrtsoftplus", hc_mult: publishedStreams },
  hasWindows: true,
  common(config) {
    const { rope_scaling: scaling, num_hidden_layers: layers, ...args } = config as Args;
    const hashed = Array.from({ length: layers }, (_, i) => hashes(config as Args, i));
    const count = hashed.indexOf(false) < 0 ? layers : hashed.indexOf(false);
    if (hashed.includes(true, count)) noPlace('"mlp_layer_types" with a table of tokens behind other layers');
    return {
      num_key_value_heads: 1,
      num_hash_layers: count,
      layer_types: null,
      rope_scaling: scaling && {
        ...scaling,
        type: "yarn",
        original_max_position_embeddings: scaling.original_max_position_embeddings ?? args.max_position_embeddings,
      },
    };
  },
  read(file, common) {
    const layers = common.num_hidden_layers as number;
    const limits = file.list("swiglu_clamp_exp")?.slice(0, layers).map(precise) ?? [];
    if (new Set(limits).size > 1) file.wrong('"swiglu_clamp_exp" differs between layers; mlxlm has one limit');
    return {
      partial_rotary_factor: undefined,
      num_key_value_heads: 1,
      qk_rope_head_dim: file.need("rope.dimension_count"),
      compress_ratios: file.list("attention.compress_ratios")?.slice(0, layers),
      swiglu_limit: limits[0] ?? 0,
    };
  },
  write(_, config) {
    const args = config as Args;
    const layers = Array.from({ length: args.num_hidden_layers }, (_, index) => index);
    const ratios = layers.map((index) => ratioOf(args, index));
    const strange = layers.find((index) => ratios[index] !== publishedRates[typeOf(args, index)]);
    if (strange !== undefined) noPlace(`groups of ${ratios[strange]} tokens in layer ${strange}`);
    checkIndexerWidth(args.index_head_dim);
    // llama.cpp (October 2026) ends with a division by zero where both are the same.
    if (args.index_head_dim === args.head_dim)
      noPlace(`"index_head_dim" ${args.index_head_dim}, which is "head_dim" too,`);
    const limits = f32(layers.map(() => args.swiglu_limit));
    return {
      vocab_size: u32(args.vocab_size),
      embedding_length_out: u32(args.hidden_size * args.hc_mult),
      "attention.compress_ratios": u32(ratios),
      swiglu_clamp_exp: limits,
      swiglu_clamp_shexp: limits,
      expert_gating_func: u32(gating.sqrtsoftplus),
    };
  },
});
