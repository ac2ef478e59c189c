/**
 * MiniMax M3, its language model: MiniMax M2 with zero-centred norms on heads, clipped SwiGLU, a shared expert, some dense
 * layers, and attention that in most layers sees the blocks of keys that an indexer chooses.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  attentionMask,
  type BlockSelection,
  CacheList,
  type DecoderLayer,
  GatedMLP,
  highestOfSigmoid,
  initializeRope,
  type KeyValueCache,
  KVCache,
  type Layer,
  Linear,
  type Mask,
  type MaskRule,
  Module,
  mixExperts,
  parameter,
  type Residual,
  RMSNorm,
  type RopeOptions,
  type RotaryEmbedding,
  SwitchGLU,
  selectBlocks,
  splitHeads,
  stackExperts,
  swigluClipped,
  ZeroCenteredRMSNorm,
} from "../nn";
import { checkHeads, count, denseFields, headsOf, ropeOf, size } from "./args";
import { blockAwq } from "./awq-facts";
import { decoder } from "./gguf/decoder";
import { gating } from "./gguf/deepseek2";
import { flag, u32 } from "./gguf/facts";
import { expertLayer, plainLayer, sharedExpert, TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { CausalLM } from "./language-model";
import * as llama from "./llama";
import { NestedLM, nestedArgs } from "./nested";

const flags = z.array(z.union([z.literal(0), z.literal(1), z.boolean()]));

/** The indexer's fields, as published: newer files have them beside the others. */
const SparseAttention = z.object({
  sparse_num_index_heads: size.nullish(),
  sparse_index_dim: size.nullish(),
  sparse_block_size: size.nullish(),
  sparse_topk_blocks: size.nullish(),
  sparse_local_block: count.nullish(),
  sparse_attention_freq: flags.nullish(),
});

const TextArgs = z
  .object({
    ...denseFields,
    hidden_size: size.default(6144),
    intermediate_size: size.default(3072),
    dense_intermediate_size: size.default(12_288),
    shared_intermediate_size: size.default(3072),
    num_attention_heads: size.default(64),
    num_key_value_heads: size.default(4),
    num_hidden_layers: size.default(60),
    num_local_experts: size.default(128),
    num_experts_per_tok: size.default(4),
    rms_norm_eps: z.number().positive().default(1e-6),
    head_dim: size.default(128),
    rotary_dim: size.nullish(),
    partial_rotary_factor: z.number().positive().max(1).default(0.5),
    vocab_size: size.default(200_064),
    tie_word_embeddings: z.boolean().default(false),
    routed_scaling_factor: z.number().default(2),
    use_qk_norm: z.boolean().default(true),
    use_gemma_norm: z.boolean().default(true),
    swiglu_alpha: z.literal(1.702).default(1.702),
    swiglu_limit: z.literal(7).default(7),
    mlp_layer_types: z.array(z.enum(["dense", "sparse"])).nullish(),
    moe_layer_freq: flags.nullish(),
    layer_types: z.array(z.string()).nullish(),
    sparse_attention_config: SparseAttention.nullish(),
    index_n_heads: size.nullish(),
    index_head_dim: size.nullish(),
    index_block_size: size.nullish(),
    index_topk_blocks: size.nullish(),
    index_local_blocks: count.default(1),
  })
  .superRefine(checkHeads)
  .superRefine((args, context) => {
    const problem = (field: string, message: string) => context.addIssue({ code: "custom", path: [field], message });
    const { num_experts_per_tok: used, num_local_experts: all } = args;
    if (used > all) problem("num_experts_per_tok", `is ${used}, but "num_local_experts" is ${all}`);
    for (const field of ["mlp_layer_types", "moe_layer_freq", "layer_types"] as const) {
      const length = args[field]?.length ?? args.num_hidden_layers;
      if (length === args.num_hidden_layers) continue;
      problem(field, `has ${length} entries, but "num_hidden_layers" is ${args.num_hidden_layers}`);
    }
    const index = indexerOf(args);
    if (index && args.num_attention_heads % index.heads !== 0) {
      problem(
        "index_n_heads",
        `is ${index.heads}, but must divide "num_attention_heads" (${args.num_attention_heads})`,
      );
    }
  });

type Args = z.infer<typeof TextArgs>;

export const Args = nestedArgs(TextArgs);

interface Indexer extends BlockSelection {
  heads: number;
  headDim: number;
}

/** Sizes of the indexers; null where all layers see all. */
function indexerOf(args: Args): Indexer | null {
  const nested = args.sparse_attention_config ?? {};
  const blockSize = nested.sparse_block_size ?? args.index_block_size;
  if (!blockSize) return null;
  return {
    blockSize,
    topK: nested.sparse_topk_blocks ?? args.index_topk_blocks ?? 16,
    local: nested.sparse_local_block ?? args.index_local_blocks,
    heads: nested.sparse_num_index_heads ?? args.index_n_heads ?? 4,
    headDim: nested.sparse_index_dim ?? args.index_head_dim ?? 128,
  };
}

function isSparse(args: Args, index: number): boolean {
  if (args.layer_types) return args.layer_types[index] !== "full_attention";
  return Boolean(args.sparse_attention_config?.sparse_attention_freq?.[index] ?? true);
}

function hasExperts(args: Args, index: number): boolean {
  if (args.mlp_layer_types) return args.mlp_layer_types[index] === "sparse";
  return Boolean(args.moe_layer_freq?.[index] ?? true);
}

function rotated(args: Args): RopeOptions {
  const stated = args.rope_parameters?.partial_rotary_factor;
  const share = typeof stated === "number" ? stated : args.partial_rotary_factor;
  const dims = args.rotary_dim ?? Math.trunc(headsOf(args).headDim * share);
  return { ...ropeOf({ ...args, rope_traditional: false }, { base: 5_000_000 }), dims };
}

const normOf = (args: Args, dims: number): RMSNorm =>
  new (args.use_gemma_norm ? ZeroCenteredRMSNorm : RMSNorm)(dims, args.rms_norm_eps);

class Attention extends llama.Attention {
  q_norm?: RMSNorm;
  k_norm?: RMSNorm;

  constructor(args: Args) {
    super({ ...args, attention_bias: false }, { rope: rotated(args) });
    if (!args.use_qk_norm) return;
    this.q_norm = normOf(args, this.headDim);
    this.k_norm = normOf(args, this.headDim);
  }
}

/** With a few narrow heads that choose blocks of keys. */
class IndexedAttention extends Attention {
  index_q_proj: Layer;
  index_k_proj: Layer;
  index_q_norm: RMSNorm;
  index_k_norm: RMSNorm;
  readonly indexRope: RotaryEmbedding;

  constructor(
    args: Args,
    readonly index: Indexer,
  ) {
    super(args);
    const { heads, headDim } = index;
    this.index_q_proj = new Linear(args.hidden_size, heads * headDim, { bias: false });
    this.index_k_proj = new Linear(args.hidden_size, headDim, { bias: false });
    this.index_q_norm = normOf(args, headDim);
    this.index_k_norm = normOf(args, headDim);
    const rope = rotated(args);
    this.indexRope = initializeRope({ ...rope, dims: Math.min(rope.dims, headDim) });
  }

  /**
   * The mask of the chosen keys for x (B, T, D), and what the indexer's cache holds now: a step that sees all blocks has no
   * other use for it.
   */
  choose(x: Tensor, mask: Mask, cache?: KeyValueCache): { mask: Mask; held: readonly Tensor[] } {
    const { heads, blockSize, topK } = this.index;
    const offset = cache?.offset ?? 0;
    const own = this.indexRope.forward(this.index_k_norm.forward(splitHeads(this.index_k_proj.forward(x), 1)), offset);
    // A cache of keys and values, of which only the keys have features.
    const held = (cache?.update(own, mx.zeros([...own.shape.slice(0, 3), 0], own.dtype)) ?? []) as Tensor[];
    const keys = held[0] ?? own;
    if (Math.ceil(keys.dim(2) / blockSize) <= topK) return { mask, held };

    const queries = this.index_q_norm.forward(splitHeads(this.index_q_proj.forward(x), heads));
    const turned = this.indexRope.forward(queries, offset).astype("float32");
    const scores = turned.matmul(keys.astype("float32").swapaxes(-1, -2));
    const chosen = selectBlocks(scores, mask, offset, this.index);
    return { mask: mx.repeat(chosen, this.heads / heads, { axis: 1 }), held };
  }
}

const clippedMLP = (dims: number, hiddenDims: number) =>
  new GatedMLP(dims, hiddenDims, { activation: swigluClipped, downLast: true });

class SparseMoeBlock extends Module {
  gate: Layer;
  /** (experts) */
  e_score_correction_bias: Tensor;
  switch_mlp: SwitchGLU;
  shared_experts: Layer;
  readonly expertsPerToken: number;
  readonly scale: number;

  constructor(args: Args) {
    super();
    const { hidden_size: dims, num_local_experts: experts } = args;
    this.gate = new Linear(dims, experts, { bias: false });
    this.e_score_correction_bias = parameter(mx.zeros([experts]));
    this.switch_mlp = new SwitchGLU(dims, args.intermediate_size, experts, { activation: swigluClipped });
    this.shared_experts = clippedMLP(dims, args.shared_intermediate_size);
    this.expertsPerToken = args.num_experts_per_tok;
    this.scale = args.routed_scaling_factor;
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    const { experts, weights } = highestOfSigmoid(this.gate.forward(x), this.e_score_correction_bias, this);
    const mixed = mixExperts(x, this.switch_mlp, { experts, weights: weights.astype(x.dtype) });
    return mixed.add(this.shared_experts.forward(x));
  }
}

/** Keys and values, and the indexer's keys where a layer has one. */
type ListedCache = CacheList<KeyValueCache>;

const listedMask: MaskRule<ListedCache> = { key: "listed", make: (h, cache) => attentionMask(h, cache?.parts[0]) };

class Block extends Module implements DecoderLayer<ListedCache> {
  self_attn: Attention;
  block_sparse_moe?: SparseMoeBlock;
  mlp?: Layer;
  input_layernorm: RMSNorm;
  post_attention_layernorm: RMSNorm;
  readonly mask = listedMask;

  constructor(args: Args, index: number) {
    super();
    const indexer = isSparse(args, index) ? indexerOf(args) : null;
    this.self_attn = indexer ? new IndexedAttention(args, indexer) : new Attention(args);
    if (hasExperts(args, index)) this.block_sparse_moe = new SparseMoeBlock(args);
    else this.mlp = clippedMLP(args.hidden_size, args.dense_intermediate_size);
    this.input_layernorm = normOf(args, args.hidden_size);
    this.post_attention_layernorm = normOf(args, args.hidden_size);
  }

  forward(x: Residual, mask: Mask, cache?: ListedCache): Residual {
    const h = x.plus(this.#attend(x.branch(this.input_layernorm), mask, cache?.parts ?? []));
    const fed = (this.block_sparse_moe ?? this.mlp!).forward(h.branch(this.post_attention_layernorm));
    return h.plus(fed);
  }

  #attend(x: Tensor, mask: Mask, [tokens, index]: readonly KeyValueCache[]): Tensor {
    if (!(this.self_attn instanceof IndexedAttention)) return this.self_attn.forward(x, mask, tokens);
    const { mask: chosen, held } = this.self_attn.choose(x, mask, index);
    // Otherwise the indexer's cache would stay a graph that grows with each step.
    const [input] = held.length > 0 ? mx.depends([x], held) : [x];
    return this.self_attn.forward(input!, chosen, tokens);
  }

  makeCache(): ListedCache {
    const isIndexed = this.self_attn instanceof IndexedAttention;
    return new CacheList(isIndexed ? [new KVCache(), new KVCache()] : [new KVCache()]);
  }
}

/** The names that checkpoints give the experts' projections, by ours. */
const names = { gate_proj: "w1", down_proj: "w2", up_proj: "w3" };

class TextModel extends CausalLM<ListedCache> {
  readonly #experts: number;

  constructor(args: Args) {
    super(args, (index) => new Block(args, index), { norm: (dims) => normOf(args, dims) });
    this.#experts = args.num_local_experts;
  }

  /** Stacks the experts; weights in mxfp8 become MLX's words. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = new Map<string, Tensor>();
    for (const [name, tensor] of super.sanitize(weights)) {
      const path = name.replace(/\.(weight|weight_scale_inv)$/, "");
      if (!weights.has(`${path}.weight_scale_inv`)) sanitized.set(name, tensor);
      else if (name.endsWith(".weight")) sanitized.set(name, tensor.view("uint32"));
      else sanitized.set(`${path}.scales`, tensor);
    }
    for (const layer of this.layers.keys()) {
      const moe = `model.layers.${layer}.block_sparse_moe`;
      stackExperts(sanitized, { count: this.#experts, from: `${moe}.experts`, to: `${moe}.switch_mlp`, names });
    }
    return sanitized;
  }
}

export class Model extends NestedLM {
  constructor(args: Args) {
    super(new TextModel(args));
  }
}

/** The router decides which experts are read: it stays at 8 bits. */
export const quantize = (path: string) =>
  path.endsWith("block_sparse_moe.gate") ? { groupSize: 64, bits: 8 } : undefined;

/** The bias of the routing is learned in float32, and small. */
export const keepsDtype = (path: string) => path.endsWith("e_score_correction_bias");

export const awq = blockAwq({ inner: "language_model", mlp: "block_sparse_moe", isLinear: false });

const moe = "block_sparse_moe";

const layerNames = {
  ...plainLayer,
  ...expertLayer(moe),
  ...sharedExpert(`${moe}.shared_experts`),
  "indexer.q_proj": "self_attn.index_q_proj",
  "indexer.k_proj": "self_attn.index_k_proj",
  "indexer.q_norm": "self_attn.index_q_norm",
  "indexer.k_norm": "self_attn.index_k_norm",
};

export const gguf = decoder("minimax-m3", {
  names: new TensorNames(layerNames, {
    parameters: { "exp_probs_b.bias": `${moe}.e_score_correction_bias` },
    prefix: "language_model.",
  }),
  normOffset: 1,
  ropeBase: 5_000_000,
  turning: (settings) => rotated(settings as unknown as Args).dims,
  integers: {
    feed_forward_length: "dense_intermediate_size",
    expert_count: "num_local_experts",
    expert_used_count: "num_experts_per_tok",
    expert_feed_forward_length: "intermediate_size",
    "attention.indexer.head_count": "index_n_heads",
    "attention.indexer.key_length": "index_head_dim",
    "attention.indexer.top_k": "index_topk_blocks",
    "attention.indexer.block_size": "index_block_size",
    "attention.indexer.local_blocks": "index_local_blocks",
  },
  floats: { expert_weights_scale: "routed_scaling_factor" },
  only: { use_gemma_norm: true, use_qk_norm: true, tie_word_embeddings: false },
  read(file, { num_hidden_layers, partial_rotary_factor = 1, intermediate_size }) {
    const dense = file.number("leading_dense_block_count") ?? 0;
    const isSparse = Array.from({ length: num_hidden_layers as number }, (_, index) => index >= dense);
    return {
      partial_rotary_factor,
      shared_intermediate_size: (intermediate_size as number) * file.need("expert_shared_count"),
      mlp_layer_types: isSparse.map((is) => (is ? "sparse" : "dense")),
      layer_types: isSparse.map((is) => (is ? "sparse_attention" : "full_attention")),
    };
  },
  write(_, config) {
    const args = config as Args;
    const indexer = indexerOf(args) ?? noPlace("a model without an indexer");
    const layers = Array.from({ length: args.num_hidden_layers }, (_, index) => index);
    const dense = layers.filter((index) => !hasExperts(args, index)).length;
    if (!layers.every((index) => hasExperts(args, index) === index >= dense)) noPlace("a dense layer behind experts");
    if (!layers.every((index) => isSparse(args, index) === index >= dense)) {
      noPlace("indexers elsewhere than in the layers with experts");
    }
    const shared = args.shared_intermediate_size / args.intermediate_size;
    if (!Number.isInteger(shared)) noPlace(`"shared_intermediate_size" ${args.shared_intermediate_size}`);
    if (indexer.heads !== headsOf(args).kvHeads) noPlace(`"index_n_heads" ${indexer.heads} (not that of keys)`);
    return {
      leading_dense_block_count: u32(dense),
      expert_shared_count: u32(shared),
      expert_weights_norm: flag(true),
      expert_gating_func: u32(gating.sigmoid),
      "attention.indexer.head_count": u32(indexer.heads),
      "attention.indexer.key_length": u32(indexer.headDim),
      "attention.indexer.top_k": u32(indexer.topK),
      "attention.indexer.block_size": u32(indexer.blockSize),
      "attention.indexer.local_blocks": u32(indexer.local),
    };
  },
});
