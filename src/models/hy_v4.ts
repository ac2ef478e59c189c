/**
 * Hunyuan 4: DeepSeek V3.2's sparse attention with a gate on its results and sinks, whose choice of tokens some layers share;
 * several residual streams, which layers read and write by weights of their own, but don't mix; clipped SwiGLU in experts.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  among,
  boundedSwiglu,
  CacheList,
  Decoder,
  type DecoderLayer,
  type ForwardOptions,
  initializeRope,
  type KeyValueCache,
  KVCache,
  LatentProjections,
  type Layer,
  Linear,
  type Mask,
  Module,
  parameter,
  Residual,
  RMSNorm,
  type RotaryEmbedding,
  remember,
  SparseIndexer,
  SwitchGLU,
  splitKeysValues,
  stackExperts,
  streamsOf,
  takeChosen,
} from "../nn";
import { ropeOptions, size } from "./args";
import * as deepseek from "./deepseek_v3";
import { sparseMask } from "./deepseek_v32";
import { pairedTail } from "./gguf/changes";
import { decoder, precise, routedExperts } from "./gguf/decoder";
import { gating, indexerFields, indexerLayer, latentLayer, normalizes } from "./gguf/deepseek2";
import { f32, flag, u32 } from "./gguf/facts";
import { connectionNames, expertLayer, fusedExperts, plainLayer, sharedExpert, TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { CausalLM } from "./language-model";
import { withoutDraftLayers } from "./mtp/draft-layers";
import { withoutPrefix } from "./nested";

const { q_lora_rank: _, n_shared_experts: __, ...shared } = deepseek.fields;

export const Args = z
  .object({
    ...shared,
    n_shared_experts: size.default(1),
    routed_scaling_factor: z.number().default(2.827),
    rms_norm_eps: z.number().positive().default(1e-5),
    /** Queries of the indexer come from those of attention ahead of their last projection. */
    q_lora_rank: size,
    index_head_dim: size.default(128),
    index_n_heads: size.default(32),
    index_topk: size.default(2048),
    /** For each layer whether it chooses tokens, or takes the choice of the latest layer that does. */
    indexer_types: z.array(z.enum(["full", "shared"])).nullish(),
    /** For each layer whether it has experts; all but the first few where absent. */
    mlp_layer_types: z.array(z.enum(["dense", "sparse"])).nullish(),
    first_k_dense_replace: z.int().nonnegative().default(1),
    swiglu_limit: z.number().default(10),
    hc_mult: size.default(4),
    hc_eps: z.number().positive().default(1e-6),
    hc_magnitude: z.number().positive().default(2),
  })
  .superRefine(deepseek.checkExperts)
  .superRefine(({ num_hidden_layers: layers, ...args }, context) => {
    const problem = (field: string, message: string) => context.addIssue({ code: "custom", path: [field], message });
    for (const field of ["indexer_types", "mlp_layer_types"] as const) {
      const length = args[field]?.length ?? layers;
      if (length !== layers) problem(field, `has ${length} entries, but "num_hidden_layers" is ${layers}`);
    }
    if (args.indexer_types?.[0] === "shared") problem("indexer_types", `begins with "shared": there is no choice yet`);
  });

type Args = z.infer<typeof Args>;

const choosesAt = ({ indexer_types: types }: Args, index: number): boolean =>
  types ? types[index] === "full" : index === 0 || index % 4 === 1;

/** Turns the last features of a head. */
class TailRotation extends Module implements RotaryEmbedding {
  readonly plain = null;

  constructor(
    readonly dims: number,
    readonly inner: RotaryEmbedding,
  ) {
    super();
  }

  forward(x: Tensor, offset?: number | Tensor): Tensor {
    const [still, turning] = x.split([x.dim(-1) - this.dims], -1) as [Tensor, Tensor];
    return mx.concatenate([still, this.inner.forward(turning, offset)], { axis: -1 });
  }
}

type SparseCache = CacheList<KeyValueCache>;

function ropeOf(args: Args): RotaryEmbedding {
  const { qk_rope_head_dim: dims, max_position_embeddings: maxPositions } = args;
  return initializeRope({ dims, maxPositions, ...ropeOptions(args, { base: 10_000_000 }) });
}

class Attention extends LatentProjections {
  indexer?: SparseIndexer;
  linear_gate: Layer;
  /** (H) */
  learnable_sink_param: Tensor;

  constructor(args: Args, chooses: boolean) {
    super(deepseek.attentionSizes(args), ropeOf(args), deepseek.latentScaling(args).scale);
    const { hidden_size: dims, num_attention_heads: heads, index_head_dim: headDim, rms_norm_eps: eps } = args;
    if (chooses) {
      this.indexer = new SparseIndexer(
        { dims, queryRank: args.q_lora_rank, heads: args.index_n_heads, headDim, topK: args.index_topk, eps },
        new TailRotation(args.qk_rope_head_dim, ropeOf(args)),
      );
    }
    this.linear_gate = new Linear(dims, heads * args.v_head_dim, { bias: false });
    this.learnable_sink_param = parameter(mx.zeros([heads]));
  }

  protected override get scoreSinks(): Tensor {
    return this.learnable_sink_param;
  }

  /** x (B, T, D), mask: an array or null → (B, T, D), and which tokens were chosen, (B, 1, T, K); null for all. */
  forward(x: Tensor, mask: Mask, cache: SparseCache | undefined, before: Tensor | null): [Tensor, Tensor | null] {
    const [tokens, index] = cache?.parts ?? [];
    const own = this.project(x, tokens?.offset);
    const seen = remember(own, tokens);
    const choice = this.indexer?.choose(x, own.latentQueries!, mask, index);
    // Otherwise the indexer's cache would stay a graph that grows with each step.
    if (choice?.held.length) [seen.latent] = mx.depends([seen.latent], choice.held) as [Tensor];
    const chosen = choice ? choice.chosen : before;
    const all = { ...own, ...seen };
    const visible = chosen && x.dim(1) > 1 ? among(chosen, seen.latent.dim(2), mask) : mask;
    const [rows, mine] = chosen && x.dim(1) === 1 ? takeChosen(all, chosen, mask) : [all, visible];
    const heads = this.attendByHead(rows, mine);
    const gate = this.linear_gate.forward(x).sigmoid();
    const joined = heads.transpose(0, 2, 1, 3).flatten(2, 3);
    return [this.o_proj.forward(joined.multiply(gate)), chosen];
  }
}

class MoE extends deepseek.MoE {
  constructor(args: Args, experts: number) {
    super(args, experts);
    this.switch_mlp.dispose();
    const { hidden_size: dims, moe_intermediate_size: hidden, swiglu_limit: limit } = args;
    this.switch_mlp = new SwitchGLU(dims, hidden, experts, { activation: boundedSwiglu(limit) });
  }
}

function feedForward(args: Args, index: number): Layer {
  const { mlp_layer_types: types, n_routed_experts: experts, first_k_dense_replace: dense } = args;
  const isSparse = types ? types[index] === "sparse" : index >= dense;
  return experts && isSparse ? new MoE(args, experts) : deepseek.mlpOf(args.hidden_size, args.intermediate_size);
}

type StreamSizes = Pick<Args, "hidden_size" | "hc_mult" | "hc_eps" | "hc_magnitude" | "rms_norm_eps">;

/** All streams of a token side by side, without their length, times a matrix: (B, T, S, D) → (B, T, N), float32. */
const scored = (streams: Tensor, fn: Tensor, eps: number) =>
  mx.fast.rmsNorm(streams.flatten(-2).astype("float32"), null, eps).matmul(fn.astype("float32").T);

/** Streams (B, T, S, D) by weights (B, T, S): (B, T, D) */
const weighted = (streams: Tensor, weights: Tensor) =>
  weights.expandDims(-2).matmul(streams.astype("float32")).squeeze(-2).astype(streams.dtype);

/** How a part of a layer reads the streams, and writes to them. */
class StreamWeights extends Module {
  hc_fn: Tensor;
  hc_base: Tensor;
  hc_scale: Tensor;

  constructor(readonly sizes: StreamSizes) {
    super();
    const { hc_mult: S, hidden_size: D } = sizes;
    this.hc_fn = parameter(mx.zeros([2 * S, S * D]));
    this.hc_base = parameter(mx.zeros([2 * S]));
    this.hc_scale = parameter(mx.ones([2]));
  }

  /** streams (B, T, S, D) → what the part reads, (B, T, D), and by which its result enters each stream, (B, T, S). */
  forward(streams: Tensor): [read: Tensor, write: Tensor] {
    const { hc_eps: eps, hc_magnitude: magnitude, rms_norm_eps } = this.sizes;
    const weights = scored(streams, this.hc_fn, rms_norm_eps).split(2, -1) as [Tensor, Tensor];
    const [scales, bases] = [this.hc_scale.split(2, 0), this.hc_base.split(2, 0)];
    const [read, write] = weights.map((one, i) => one.multiply(scales[i]!).add(bases[i]!).sigmoid());
    return [weighted(streams, read!.add(eps)), write!.multiply(magnitude).add(eps)];
  }
}

/** Checkpoints have the weights one level further down. */
class HyperConnection extends Module {
  hc_pre: StreamWeights;

  constructor(sizes: StreamSizes) {
    super();
    this.hc_pre = new StreamWeights(sizes);
  }
}

/** How the last norm reads the streams. */
class HyperHead extends Module {
  hc_head_fn: Tensor;
  hc_head_base: Tensor;
  hc_head_scale: Tensor;

  constructor(readonly sizes: StreamSizes) {
    super();
    const { hc_mult: S, hidden_size: D } = sizes;
    this.hc_head_fn = parameter(mx.zeros([S, S * D]));
    this.hc_head_base = parameter(mx.zeros([S]));
    this.hc_head_scale = parameter(mx.ones([1]));
  }

  /** streams (B, T, S, D) → (B, T, D) */
  forward(streams: Tensor): Tensor {
    const weights = scored(streams, this.hc_head_fn, this.sizes.rms_norm_eps);
    const read = weights.multiply(this.hc_head_scale).add(this.hc_head_base).sigmoid();
    return weighted(streams, read.add(this.sizes.hc_eps));
  }
}

/** Several streams (B, T, S, D), and the tokens that the latest indexer chose. */
class Streams extends Residual {
  constructor(
    readonly all: Tensor,
    readonly chosen: Tensor | null,
  ) {
    super(all);
  }
}

class Block extends Module implements DecoderLayer<SparseCache> {
  self_attn: Attention;
  mlp: Layer;
  input_layernorm: RMSNorm;
  post_attention_layernorm: RMSNorm;
  hc_attn_layer: HyperConnection;
  hc_mlp_layer: HyperConnection;
  readonly mask = sparseMask;

  constructor(
    readonly args: Args,
    index: number,
  ) {
    super();
    const { hidden_size: D, rms_norm_eps: eps } = args;
    this.self_attn = new Attention(args, choosesAt(args, index));
    this.mlp = feedForward(args, index);
    this.input_layernorm = new RMSNorm(D, eps);
    this.post_attention_layernorm = new RMSNorm(D, eps);
    this.hc_attn_layer = new HyperConnection(args);
    this.hc_mlp_layer = new HyperConnection(args);
  }

  forward(x: Residual, mask: Mask, cache?: SparseCache): Residual {
    const all = x.value.ndim === 4 ? x.value : streamsOf(x.value, this.args.hc_mult);
    const [read, write] = this.hc_attn_layer.hc_pre.forward(all);
    const before = x instanceof Streams ? x.chosen : null;
    const [attended, chosen] = this.self_attn.forward(this.input_layernorm.forward(read), mask, cache, before);
    const between = written(attended, all, write);
    const [next, writeNext] = this.hc_mlp_layer.hc_pre.forward(between);
    const fed = this.mlp.forward(this.post_attention_layernorm.forward(next));
    return new Streams(written(fed, between, writeNext), chosen);
  }

  makeCache(): SparseCache {
    return new CacheList(this.self_attn.indexer ? [new KVCache(), new KVCache()] : [new KVCache()]);
  }
}

/** The streams (B, T, S, D) behind a part whose result is x (B, T, D). */
const written = (x: Tensor, streams: Tensor, write: Tensor): Tensor =>
  streams
    .astype("float32")
    .add(write.expandDims(-1).multiply(x.expandDims(-2)))
    .astype(streams.dtype);

class StreamDecoder extends Decoder<SparseCache> {
  hc_head: HyperHead;

  constructor(args: Args, ...parts: ConstructorParameters<typeof Decoder<SparseCache>>) {
    super(...parts);
    this.hc_head = new HyperHead(args);
  }

  override stream(inputs: Tensor, options?: ForwardOptions<SparseCache>): Residual {
    return new Residual(this.hc_head.forward(super.stream(inputs, options).value));
  }
}

export class Model extends CausalLM<SparseCache> {
  readonly #args: Args;

  constructor(args: Args) {
    const trunk = { ...args, tie_word_embeddings: false };
    super(trunk, (index) => new Block(args, index), { decoder: (...parts) => new StreamDecoder(args, ...parts) });
    this.#args = args;
  }

  /**
   * Stacks the experts, or takes their joint matrices apart, and those of keys and values; drops the layers that predict
   * further tokens.
   */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const own = withoutDraftLayers(super.sanitize(withoutPrefix(weights)), this.layers.length);
    const sanitized = new Map([...own].filter(([name]) => !/^model\.mtp_layers\./.test(name)));
    const sizes = deepseek.attentionSizes(this.#args);
    for (const layer of this.layers.keys()) {
      const path = `model.layers.${layer}`;
      const [from, to] = [`${path}.mlp.experts`, `${path}.mlp.switch_mlp`];
      stackExperts(sanitized, { count: this.#args.n_routed_experts ?? 0, from, to });
      takeApart(sanitized, from, to);
      splitKeysValues(sanitized, `${path}.self_attn`, sizes);
    }
    return sanitized;
  }
}

/** Experts' first two matrices as one, by transformers' name or by mlx-vlm's. Changes the map. */
function takeApart(weights: Map<string, Tensor>, from: string, to: string): void {
  const down = weights.get(`${from}.down_proj`);
  if (down) weights.set(`${to}.down_proj.weight`, down);
  weights.delete(`${from}.down_proj`);
  for (const kind of ["weight", "scales", "biases"]) {
    for (const name of [`${to}.gate_up_proj.${kind}`, ...(kind === "weight" ? [`${from}.gate_up_proj`] : [])]) {
      const joint = weights.get(name);
      if (!joint) continue;
      const [gate, up] = joint.split(2, 1).map((half) => mx.contiguous(half)) as [Tensor, Tensor];
      weights.delete(name);
      weights.set(`${to}.gate_proj.${kind}`, gate).set(`${to}.up_proj.${kind}`, up);
    }
  }
}

export const { joins } = deepseek;

/** What is learned in float32. */
export const keepsDtype = (path: string) => /\.hc_|(e_score_correction_bias|learnable_sink_param)$/.test(path);

/** llama.cpp turns neighbours, where transformers turns halves: what turns lies in files as llama.cpp wants it. */
const turnedRows = (args: Args) => {
  const { qk_rope_head_dim: turning, num_attention_heads: heads, index_n_heads: choosers } = args;
  return {
    "self_attn.q_b_proj": pairedTail(heads, turning),
    "self_attn.kv_a_proj_with_mqa": pairedTail(1, turning),
    "self_attn.indexer.wq_b": pairedTail(choosers, turning),
    "self_attn.indexer.wk": pairedTail(1, turning),
    "self_attn.indexer.k_norm": pairedTail(1, turning),
  };
};

export const gguf = decoder("hy_v4", {
  names: new TensorNames(
    {
      ...plainLayer,
      ...latentLayer,
      ...indexerLayer,
      ...expertLayer("mlp"),
      ...sharedExpert("mlp.shared_experts"),
      attn_gate: "self_attn.linear_gate",
    },
    {
      parameters: {
        "attn_sinks.weight": "self_attn.learnable_sink_param",
        "exp_probs_b.bias": "mlp.gate.e_score_correction_bias",
        ...connectionNames((part) => `hc_${part === "ffn" ? "mlp" : part}_layer.hc_pre.hc_`),
      },
      outerParameters: Object.fromEntries(
        ["fn", "base", "scale"].map((own) => [`output_hc_${own}.weight`, `model.hc_head.hc_head_${own}`]),
      ),
      halves: fusedExperts("mlp"),
    },
  ),
  changes: (config) => turnedRows(config as Args),
  ropeBase: 10_000_000,
  turning: (settings) => (settings as unknown as Args).qk_rope_head_dim,
  integers: {
    ...routedExperts,
    ...indexerFields,
    leading_dense_block_count: "first_k_dense_replace",
    "attention.q_lora_rank": "q_lora_rank",
    "attention.kv_lora_rank": "kv_lora_rank",
    "hyper_connection.count": "hc_mult",
  },
  floats: {
    expert_weights_scale: "routed_scaling_factor",
    "hyper_connection.epsilon": "hc_eps",
    "hyper_connection.magnitude": "hc_magnitude",
  },
  only: { attention_bias: false, n_group: 1, topk_group: 1, moe_layer_freq: 1 },
  common(config) {
    const { mlp_layer_types: types, first_k_dense_replace: dense } = config as Args;
    const count = types ? types.lastIndexOf("dense") + 1 : dense;
    if (types?.slice(0, count).includes("sparse")) noPlace('"mlp_layer_types" with a dense layer behind sparse ones');
    return { num_key_value_heads: null, first_k_dense_replace: count };
  },
  read(file, common) {
    const layers = common.num_hidden_layers as number;
    const turning = file.need("rope.dimension_count");
    const chooses = file.list("attention.indexer.types") ?? Array<number>(layers).fill(1);
    if (!file.number("attention.indexer.top_k")) file.wrong("it has no indexer, which mlxlm needs");
    const limits = file.list("swiglu_clamp_exp")?.slice(0, layers).map(precise) ?? [];
    if (new Set(limits).size > 1) file.wrong('"swiglu_clamp_exp" differs between layers; mlxlm has one limit');
    return {
      partial_rotary_factor: undefined,
      head_dim: undefined,
      num_key_value_heads: common.num_attention_heads,
      qk_rope_head_dim: turning,
      qk_nope_head_dim: file.need("attention.key_length_mla") - turning,
      v_head_dim: file.need("attention.value_length_mla"),
      norm_topk_prob: normalizes(file),
      indexer_types: Array.from({ length: layers }, (_, i) => (chooses[i] === 0 ? "shared" : "full")),
      swiglu_limit: limits[0] ?? 0,
    };
  },
  write(_, config) {
    const args = config as Args;
    const { num_hidden_layers: layers, kv_lora_rank: rank, qk_rope_head_dim: turning, swiglu_limit: limit } = args;
    if (!args.n_routed_experts) noPlace("a model without routed experts");
    const { type, rope_type: kind } = ropeOptions(args, { base: 1 }).scaling ?? {};
    // llama.cpp's scores have no factor for stretched positions.
    if ((type || kind || "default") !== "default") noPlace(`a rotation of type "${type || kind}"`);
    const each = Array.from({ length: layers }, (_, index) => index);
    return {
      vocab_size: u32(args.vocab_size),
      "attention.head_count_kv": u32(1),
      "attention.key_length": u32(rank + turning),
      "attention.value_length": u32(rank),
      "attention.key_length_mla": u32(args.qk_nope_head_dim + turning),
      "attention.value_length_mla": u32(args.v_head_dim),
      "attention.indexer.types": flag(each.map((index) => choosesAt(args, index))),
      expert_weights_norm: flag(args.norm_topk_prob),
      expert_gating_func: u32(gating.sigmoid),
      swiglu_clamp_exp: limit > 0 ? f32(each.map(() => limit)) : undefined,
    };
  },
});
