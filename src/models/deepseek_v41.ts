/**
 * DeepSeek V4.1: layers joined by hyper-connections; attention whose one head of keys is also its values, to the latest
 * tokens and to groups of older ones that some layers compress and others share, as an indexer chooses; experts by the root
 * of a softplus. The trained memory of n-grams (Engram) is not here.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  attentionMask,
  CompressedAttention,
  type CompressedCache,
  type DecoderLayer,
  type ForwardOptions,
  GatedMLP,
  HyperConnection,
  highest,
  type KeyValueCache,
  type Mask,
  type MaskRule,
  Module,
  mixExperts,
  parameter,
  Residual,
  RMSNorm,
  type Routing,
  RowsApart,
  readStreams,
  SwitchGLU,
  stackExperts,
  type Told,
  usualJoins,
  writeStreams,
  yarnFrequencies,
} from "../nn";
import { checkExperts, count, size } from "./args";
import { CausalLM } from "./language-model";

const positive = z.number().positive();

const layers = z.array(count).default([]);

/** How positions turn heads, and the residual streams, as DeepSeek V4 has them too. */
export const ropeAndStreams = {
  rope_theta: positive.default(10_000),
  rope_scaling: z
    .object({
      factor: positive.default(1),
      original_max_position_embeddings: positive.nullish(),
      beta_fast: positive.default(32),
      beta_slow: positive.default(1),
    })
    .nullish(),
  max_position_embeddings: size.default(1_048_576),
  hc_mult: size.default(4),
  hc_sinkhorn_iters: size.default(20),
  hc_eps: positive.default(1e-6),
};

const TextArgs = z
  .object({
    vocab_size: size.default(129_280),
    hidden_size: size.default(5120),
    num_hidden_layers: size.default(40),
    num_attention_heads: size.default(64),
    head_dim: size.default(512),
    q_lora_rank: size.default(1280),
    qk_rope_head_dim: size.default(64),
    /** Groups of heads that have a projection of their own ahead of the common one, and its width. */
    o_groups: size.default(8),
    o_lora_rank: size.default(1024),
    moe_intermediate_size: size.default(2304),
    n_routed_experts: size.default(384),
    num_experts_per_tok: size.default(6),
    scoring_func: z.enum(["sqrtsoftplus", "sigmoid", "softmax"]).default("sqrtsoftplus"),
    gate_temp: positive.default(1),
    norm_topk_prob: z.boolean().default(true),
    routed_scaling_factor: z.number().default(1.5),
    swiglu_limit: z.number().nonnegative().default(10),
    rms_norm_eps: positive.default(1e-20),
    sliding_window: size.default(128),
    /** By layer, how many tokens make a group; 0 where only the window is seen. */
    compress_ratios: layers,
    /** Layers that make groups, and that choose them; the others take those of the latest such layer. */
    kv_source_layer_ids: layers,
    index_source_layer_ids: layers,
    compress_rope_theta: positive.default(160_000),
    /** The layer that chooses blocks of groups, among which later ones choose; −1 for none. */
    candidate_source_layer_id: z.int().min(-1).default(-1),
    candidate_topk_blocks: count.default(2048),
    candidate_block_size: size.default(8),
    index_n_heads: size.default(32),
    index_head_dim: size.default(128),
    index_topk: size.default(512),
    ...ropeAndStreams,
    engram_layer_ids: layers.nullish(),
  })
  .superRefine(checkExperts("num_experts_per_tok", "n_routed_experts"))
  .superRefine((args, context) => {
    const problem = (field: string, message: string) => context.addIssue({ code: "custom", path: [field], message });
    const { num_attention_heads: heads, o_groups: groups, qk_rope_head_dim: rotated } = args;
    if (heads % groups !== 0) problem("o_groups", `is ${groups}, but must divide "num_attention_heads" (${heads})`);
    if (args.engram_layer_ids?.length) {
      problem("engram_layer_ids", `has layers with a memory of n-grams, which mlxlm does not have`);
    }
    const narrowest = Math.min(args.head_dim, args.index_head_dim);
    if (rotated > narrowest) problem("qk_rope_head_dim", `is ${rotated}, but a head has ${narrowest} features`);
    for (const field of ["kv_source_layer_ids", "index_source_layer_ids"] as const) {
      const strange = args[field].find((index) => !ratioOf(args, index));
      if (strange !== undefined) problem(field, `has ${strange}, but "compress_ratios" gives that layer no groups`);
    }
    for (const index of args.index_source_layer_ids) {
      const isOwn = (other: number) => other <= index && args.index_source_layer_ids.includes(other);
      if (args.kv_source_layer_ids.some(isOwn)) continue;
      problem("index_source_layer_ids", `has ${index}, but no layer up to it makes keys to choose by`);
    }
  });

type Args = z.infer<typeof TextArgs>;

/** The fields of the language model may stand under `text_config`. */
export const Args = z
  .record(z.string(), z.unknown())
  .transform(({ text_config: text, ...config }) => (typeof text === "object" && text !== null ? text : config))
  .pipe(TextArgs);

const ratioOf = (args: Pick<Args, "compress_ratios">, index: number): number => args.compress_ratios[index] ?? 0;

type TurningArgs = Pick<
  Args,
  "qk_rope_head_dim" | "rope_scaling" | "max_position_embeddings" | "rope_theta" | "compress_rope_theta"
>;

/** Layers with groups turn more slowly, by YaRN without its factor on scores. */
export function frequenciesOf(args: TurningArgs, ratio: number): () => Tensor {
  const { qk_rope_head_dim: dims, rope_scaling: scaling, max_position_embeddings: longest } = args;
  if (!ratio) return () => yarnFrequencies(dims, args.rope_theta, { factor: 1 });
  const { factor = 1, original_max_position_embeddings: original, beta_fast, beta_slow } = scaling ?? {};
  const context = original ?? longest;
  return () =>
    yarnFrequencies(dims, args.compress_rope_theta, {
      factor,
      original_max_position_embeddings: context,
      beta_fast: beta_fast && Math.trunc(beta_fast),
      beta_slow: beta_slow && Math.trunc(beta_slow),
    });
}

/** The attention of a layer. */
function attentionOf(args: Args, index: number): CompressedAttention {
  const { candidate_topk_blocks: most, candidate_block_size } = args;
  const ratio = ratioOf(args, index);
  const compresses = args.kv_source_layer_ids.includes(index);
  const selects = index === args.candidate_source_layer_id && most > 0;
  return new CompressedAttention({
    dims: args.hidden_size,
    heads: args.num_attention_heads,
    headDim: args.head_dim,
    queryRank: args.q_lora_rank,
    rotatedDims: args.qk_rope_head_dim,
    frequencies: frequenciesOf(args, ratio),
    outputGroups: args.o_groups,
    outputRank: args.o_lora_rank,
    eps: args.rms_norm_eps,
    ratio,
    compresses,
    indexer: args.index_source_layer_ids.includes(index)
      ? {
          heads: args.index_n_heads,
          headDim: args.index_head_dim,
          topK: args.index_topk,
          makesKeys: compresses,
          blocks: selects ? { size: candidate_block_size, most } : null,
        }
      : null,
  });
}

/** SwiGLU with the gate clipped from above and the value on both sides, in float32. */
function clippedSwiglu(limit: number) {
  return mx.compile(
    (gate: Tensor, x: Tensor) => {
      const [open, wide] = [gate.astype("float32"), x.astype("float32")];
      const [boundGate, bound] = limit > 0 ? [open.minimum(limit), mx.clip(wide, -limit, limit)] : [open, wide];
      return mx.fast.gated("silu", boundGate, bound).astype(x.dtype);
    },
    { shapeless: true },
  );
}

class Router extends Module {
  /** (experts, D) */
  weight: Tensor;
  /** Only takes part in the choice, (experts). */
  e_score_correction_bias: Tensor;

  constructor(readonly args: Args) {
    super();
    this.weight = parameter(mx.zeros([args.n_routed_experts, args.hidden_size]));
    this.e_score_correction_bias = parameter(mx.zeros([args.n_routed_experts]));
  }

  /** x (…, D) → (…, k) each, weights in float32 */
  forward(x: Tensor): Routing {
    const { scoring_func, gate_temp, num_experts_per_tok: k, norm_topk_prob, routed_scaling_factor } = this.args;
    const logits = x.astype("float32").matmul(this.weight.astype("float32").T).divide(gate_temp);
    const scored = {
      sigmoid: () => logits.sigmoid(),
      softmax: () => mx.softmax(logits, { axis: -1 }),
      sqrtsoftplus: () => mx.logaddexp(logits, 0).sqrt(),
    };
    const scores = scored[scoring_func]();
    const experts = highest(scores.add(this.e_score_correction_bias), k);
    const chosen = scores.takeAlongAxis(experts, -1);
    const sum = () => chosen.sum({ axis: -1, keepdims: true }).add(least);
    const weights = norm_topk_prob && k > 1 ? chosen.divide(sum()) : chosen;
    return { experts, weights: weights.multiply(routed_scaling_factor) };
  }
}

/** Far below any score: no sum of weights is zero. */
const least = 1e-20;

/** Checkpoints have the experts one level further down than other models. */
class Experts extends Module {
  constructor(readonly switch_mlp: SwitchGLU) {
    super();
  }
}

class MoE extends Module {
  gate: Router;
  experts: Experts;
  shared_experts: GatedMLP;

  constructor(args: Args) {
    super();
    const { hidden_size: dims, moe_intermediate_size: hidden } = args;
    const activation = clippedSwiglu(args.swiglu_limit);
    this.gate = new Router(args);
    this.experts = new Experts(new SwitchGLU(dims, hidden, args.n_routed_experts, { activation }));
    this.shared_experts = new GatedMLP(dims, hidden, { activation, downLast: true });
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    const mixed = mixExperts(x, this.experts.switch_mlp, this.gate.forward(x));
    return mixed.add(this.shared_experts.forward(x).astype("float32")).astype(x.dtype);
  }
}

/** Several streams (B, T, S, D), the weights (B, T, S) by which the next part reads them, and what layers told. */
class Streams extends Residual {
  constructor(
    readonly all: Tensor,
    weights: Tensor,
    readonly told: Told,
  ) {
    super(readStreams(all, weights));
  }

  /** Copies of x (B, T, D), of which the first is read. */
  static of(x: Tensor, count: number): Streams {
    const [batch, length, dims] = x.shape as [number, number, number];
    const first = mx.arange(count).equal(0).astype("float32");
    const weights = mx.broadcastTo(first, [batch, length, count]);
    return new Streams(mx.broadcastTo(x.expandDims(2), [batch, length, count, dims]), weights, {});
  }
}

class Block extends Module implements DecoderLayer<CompressedCache> {
  self_attn: CompressedAttention;
  mlp: MoE;
  input_layernorm: RMSNorm;
  post_attention_layernorm: RMSNorm;
  attn_hc: HyperConnection;
  ffn_hc: HyperConnection;
  readonly mask: MaskRule<CompressedCache>;

  constructor(
    readonly args: Args,
    index: number,
  ) {
    super();
    const { hidden_size: dims, rms_norm_eps: eps, sliding_window: window } = args;
    this.self_attn = attentionOf(args, index);
    this.mlp = new MoE(args);
    this.input_layernorm = new RMSNorm(dims, eps);
    this.post_attention_layernorm = new RMSNorm(dims, eps);
    const { hc_mult: streams, hc_sinkhorn_iters: rounds, hc_eps } = args;
    const connection = { dims, streams, rounds, eps: hc_eps, normEps: eps };
    this.attn_hc = new HyperConnection(connection);
    this.ffn_hc = new HyperConnection(connection);
    this.mask = {
      key: "latest tokens",
      make: (h, cache) => attentionMask(h, cache?.parts[0] as KeyValueCache, { window, asArray: true }),
    };
  }

  forward(x: Residual, mask: Mask, cache?: CompressedCache): Residual {
    const { all, told } = x instanceof Streams ? x : Streams.of(x.value, this.args.hc_mult);
    const around = this.attn_hc.forward(all);
    const attended = this.self_attn.forward(x.branch(this.input_layernorm), mask, cache, told);
    const between = writeStreams(attended, all, around);
    const behind = this.ffn_hc.forward(between);
    const read = this.post_attention_layernorm.forward(readStreams(between, around.read));
    return new Streams(writeStreams(this.mlp.forward(read), between, behind), behind.read, told);
  }

  makeCache(): CompressedCache {
    return this.self_attn.makeCache(this.args.sliding_window);
  }
}

/** The logits (B, T, V) of a batch whose caches keep rows apart, row by row; of any other batch at once. */
export function rowByRow(
  inputs: Tensor,
  options: ForwardOptions<CompressedCache>,
  vocabSize: number,
  forward: (inputs: Tensor, options: ForwardOptions<CompressedCache>) => Tensor,
): Tensor {
  const layers = options.cache as readonly unknown[] | undefined;
  const [first] = layers ?? [];
  if (!(first instanceof RowsApart)) return forward(inputs, options);
  const [batch, total] = inputs.shape as [number, number];
  const rows = inputs.split(batch, 0).map((row, i) => {
    const length = Math.min(first.lengths?.[i] ?? total, total);
    const cache = (layers as RowsApart[]).map((layer) => layer.rows[i] as CompressedCache);
    const logits = length > 0 ? forward(mx.sliceAxis(row, 1, 0, length), { cache }) : null;
    const rest = mx.zeros([1, total - length, vocabSize], logits?.dtype);
    return logits ? mx.concatenate([logits, rest], { axis: 1 }) : rest;
  });
  return mx.concatenate(rows);
}

export class Model extends CausalLM<CompressedCache> {
  readonly #args: Args;

  constructor(args: Args) {
    super({ ...args, tie_word_embeddings: false }, (index) => new Block(args, index));
    this.#args = args;
  }

  /** Rows of a batch have groups that end at other tokens: they are read one after the other. */
  override forward(inputs: Tensor, options: ForwardOptions<CompressedCache> = {}): Tensor {
    return rowByRow(inputs, options, this.vocabSize, (row, own) => super.forward(row, own));
  }

  /** Gives a published checkpoint's tensors their names here, stacks the experts, and leaves out what is not for text. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    if ([...weights.keys()].some((name) => name.startsWith("model."))) return super.sanitize(weights);
    const own = [...weights].filter(([name]) => !otherParts.test(name));
    const sanitized = new Map<string, Tensor>();
    for (const [name, weight] of own) {
      const [, path, kind] = /^(.*?)(\.weight|\.scale)?$/.exec(name)!;
      sanitized.set(`${named(path!)}${kind === ".scale" ? ".scales" : (kind ?? "")}`, weight);
    }
    const { n_routed_experts: experts, o_groups: groups } = this.#args;
    for (const index of this.layers.keys()) {
      const names = { gate_proj: "w1", down_proj: "w2", up_proj: "w3" };
      const from = `model.layers.${index}.mlp.experts`;
      stackExperts(sanitized, { count: experts, from, to: `${from}.switch_mlp`, names });
    }
    for (const [name, scales] of sanitized) {
      if (name.endsWith(".scales")) asWords(sanitized, name.replace(/\.scales$/, ""), scales);
    }
    for (const index of this.layers.keys()) {
      for (const kind of ["weight", "scales"]) {
        const name = `model.layers.${index}.self_attn.o_a_proj.${kind}`;
        const rows = sanitized.get(name);
        if (rows?.ndim === 2) sanitized.set(name, rows.unflatten(0, [groups, -1]));
      }
    }
    return sanitized;
  }
}

/** Parts for images, the layers that predict further tokens, the memory of n-grams, and the routing of images' tokens. */
const otherParts = /^(vision|aligner|mtp)\.|^image_|\.engram\.|\.gate\.bias_vl$/;

/** What stands in the names of published checkpoints, and in ours. */
const names: readonly (readonly [RegExp, string])[] = [
  [/^/, "model."],
  [/\.attn\./, ".self_attn."],
  [/\.ffn\./, ".mlp."],
  [/\.attn_norm$/, ".input_layernorm"],
  [/\.ffn_norm$/, ".post_attention_layernorm"],
  [/\.hc_(attn|ffn)_/, ".$1_hc."],
  [/\.attn_sink$/, ".sinks"],
  [/\.wq_(a|b)$/, ".q_$1_proj"],
  [/\.wo_(a|b)$/, ".o_$1_proj"],
  [/\.wkv$/, ".kv_proj"],
  [/\.wgate$/, ".gate_proj"],
  [/\.q_norm$/, ".q_a_norm"],
  [/\.compressor\.norm$/, ".compressor.kv_norm"],
  [/\.indexer\.wk$/, ".indexer.k_proj"],
  [/\.gate\.bias$/, ".gate.e_score_correction_bias"],
  [/\.shared_experts\.w1$/, ".shared_experts.gate_proj"],
  [/\.shared_experts\.w2$/, ".shared_experts.down_proj"],
  [/\.shared_experts\.w3$/, ".shared_experts.up_proj"],
];

function named(name: string): string {
  if (name === "head") return "lm_head";
  if (name === "embed") return "model.embed_tokens";
  return names.reduce((path, [theirs, ours]) => path.replace(theirs, ours), name);
}

/** Words of eight or four bits with powers of two as scales, as MLX has them. Changes the map. */
function asWords(weights: Map<string, Tensor>, path: string, scales: Tensor): void {
  const weight = weights.get(`${path}.weight`);
  if (!weight) return;
  const exponents = scales.dtype === "uint8" ? scales : mx.log2(scales.astype("float32")).add(127).astype("uint8");
  const rows = weight.dim(-2);
  // One scale for each block of 32 × 32 in eight bits; MLX has one for each row.
  const perRow =
    exponents.dim(-2) === rows ? exponents : mx.sliceAxis(mx.repeat(exponents, 32, { axis: -2 }), -2, 0, rows);
  weights.set(`${path}.weight`, weight.view("uint32"));
  weights.set(`${path}.scales`, perRow);
}

/** What is learned in float32. */
export const keepsDtype = (path: string) =>
  /\.(attn_hc|ffn_hc|compressor)\.|(sinks|e_score_correction_bias)$/.test(path);

export const joins = usualJoins;
