/**
 * Qwen 4's first experiment, its language model: Qwen 3.5's delta rule and gated attention, which here sees the blocks of
 * tokens that an indexer chooses; several residual streams, which each part of a layer reads through gates; and in some layers
 * a table of n-grams by hashes, whose rows the streams gate.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  ArraysCache,
  attentionMask,
  type Cache,
  type CompressedCache,
  closedPools,
  Decoder,
  type DecoderLayer,
  type ForwardOptions,
  GatedDeltaNet,
  type KeyValueCache,
  KVCache,
  type Layer,
  Linear,
  LoneCacheList,
  layerMasks,
  type Mask,
  type MaskRule,
  Module,
  type Norm,
  noFeatures,
  noMask,
  Residual,
  type RotaryEmbedding,
  silu,
  splitHeads,
  stackExperts,
  streamsOf,
  tokensOfBest,
} from "../nn";
import { checkHeads, count, size } from "./args";
import { rowByRow } from "./deepseek_v41";
import { qwen4exp } from "./gguf/qwen4exp";
import { CausalLM } from "./language-model";
import { NestedLM, nestedArgs } from "./nested";
import * as qwen3_5 from "./qwen3_5";
import { CentredNorm } from "./qwen4-exp/centred-norm";
import { eosOf, joinTables, NgramLayer, ngramHeads } from "./qwen4-exp/ngrams";

const Gate = z.enum(["silu", "sigmoid"]);

const TextArgs = z
  .object({
    ...qwen3_5.textFields,
    head_dim: size.default(256),
    layer_types: z
      .array(z.enum(["linear_attention", "full_attention", "indexed_attention", "qwen_sparse_attention"]))
      .nullish()
      .transform((types) => types?.map((type) => (type === "linear_attention" ? type : "full_attention"))),
    num_experts: size,
    hidden_act: Gate.default("silu"),
    output_gate_type: Gate.nullish(),
    hc_count: size.default(4),
    hc_lowrank: size.default(320),
    /** The layers that have a table of n-grams, from one on. */
    ple_layer_ids: z.array(size).nullish(),
    ple_embed_dim: size.nullish(),
    ple_conv_kernel_size: size.default(4),
    ngram_size: size.default(3),
    heads_per_ngram: size.default(8),
    ngram_vocab_size_base: size.default(20_000_000),
    make_ngram_vocab_size_divisible_by: size.default(128),
    /** What hashes multiply by comes from it. */
    seed: count.default(1234),
    eos_token_id: z.union([count, z.array(count)]).nullish(),
    /** GGUF files' own. */
    ple_eos_token_id: count.nullish(),
    indexer_n_heads: size.default(4),
    indexer_kv_heads: z.literal(1).default(1),
    indexer_head_dim: size.default(128),
    /** How many tokens the chosen blocks have in all, and each. */
    indexer_budget: size.default(2048),
    indexer_compress_ratio: size.default(4),
  })
  .superRefine(checkHeads)
  .superRefine(qwen3_5.checkHybrid)
  .superRefine((args, context) => {
    const problem = (field: string, message: string) => context.addIssue({ code: "custom", path: [field], message });
    const { indexer_budget: budget, indexer_compress_ratio: block, ple_layer_ids: tables } = args;
    if (budget % block !== 0) {
      problem("indexer_budget", `is ${budget}, but must be a multiple of "indexer_compress_ratio" (${block})`);
    }
    const turning = args.rope_parameters?.rope_type ?? args.rope_parameters?.type ?? "default";
    if (!["default", "mrope"].includes(turning)) {
      problem("rope_parameters", `has the type ${turning}, with which the indexer's blocks can't be turned yet`);
    }
    if (!tables?.length) return;
    const strange = tables.find((layer) => layer > args.num_hidden_layers || attends(args, layer - 1));
    if (strange) problem("ple_layer_ids", `has ${strange}, which is no layer of linear attention`);
    if (eosOf(args) === undefined) problem("eos_token_id", `is needed, as "ple_layer_ids" names layers`);
    const dims = args.ple_embed_dim ?? args.hidden_size;
    if (dims % ngramHeads(args) !== 0) {
      problem("ple_embed_dim", `is ${dims}, but must be a multiple of the heads of n-grams (${ngramHeads(args)})`);
    }
  });

type Args = z.infer<typeof TextArgs>;

export const Args = nestedArgs(TextArgs);

/** Whether a layer has attention rather than the delta rule. */
const attends = (
  { layer_types: types, full_attention_interval: every }: Pick<Args, "layer_types" | "full_attention_interval">,
  index: number,
): boolean => (types ? types[index] === "full_attention" : (index + 1) % every === 0);

/** Reads streams through gates of their own. */
class StreamReader extends Module implements Norm {
  hc_norm: CentredNorm;
  input_mix_weight_down: Layer;
  input_mix_weight_up: Layer;

  constructor(readonly args: Args) {
    super();
    const { hc_count: streams, hidden_size, hc_lowrank: rank, rms_norm_eps: eps } = args;
    const dims = streams * hidden_size;
    this.hc_norm = new CentredNorm(dims, eps);
    this.input_mix_weight_down = new Linear(dims, rank, { bias: false });
    this.input_mix_weight_up = new Linear(rank, dims, { bias: false });
  }

  /** streams (B, T, S, D) → (B, T, D) */
  forward(streams: Tensor): Tensor {
    return this.read(this.hc_norm.forward(streams));
  }

  protected read(normed: Tensor): Tensor {
    const { hc_count: streams } = this.args;
    const narrow = silu(this.input_mix_weight_down.forward(normed.flatten(-2)).divide(streams));
    const gates = this.input_mix_weight_up.forward(narrow).sigmoid().unflatten(-1, [streams, -1]);
    return gates.multiply(normed).mean({ axis: -2 });
  }
}

/** The same, and how much of a part's result enters each stream. */
class StreamConnection extends StreamReader {
  block_inject_weight: Layer;

  constructor(args: Args) {
    super(args);
    this.block_inject_weight = new Linear(args.hc_count * args.hidden_size, args.hc_count, { bias: false });
  }

  /** Streams (B, T, S, D) behind a part that reads them, (B, T, D), and gives as much. */
  around(streams: Tensor, part: (read: Tensor) => Tensor): Tensor {
    const normed = this.hc_norm.forward(streams);
    const shares = this.block_inject_weight
      .forward(normed.flatten(-2))
      .divide(this.args.hc_count)
      .sigmoid()
      .multiply(2);
    return streams.add(part(this.read(normed)).expandDims(-2).multiply(shares.expandDims(-1)));
  }
}

/** Chooses blocks of tokens, each by the mean of its keys. */
class BlockIndexer extends Module {
  index_qk_proj: Layer;
  q_layernorm: CentredNorm;
  k_layernorm: CentredNorm;
  /** By blocks. */
  readonly rope: RotaryEmbedding;

  constructor(readonly args: Args) {
    super();
    const { indexer_n_heads: heads, indexer_head_dim: dims, rms_norm_eps: eps } = args;
    this.index_qk_proj = new Linear(args.hidden_size, (heads + 1) * dims, { bias: false });
    this.q_layernorm = new CentredNorm(dims, eps);
    this.k_layernorm = new CentredNorm(dims, eps);
    this.rope = qwen3_5.ropeOf(args, args.indexer_compress_ratio);
  }

  /**
   * Which tokens each of T, x (B, T, D), sees behind `offset` others, (B, 1, T, offset + T); null for all up to it. No
   * gradient flows through the choice.
   * @param turned turns heads by their tokens' positions
   */
  choose(x: Tensor, offset: number, turned: (heads: Tensor) => Tensor, caches: Cache[]): Tensor | null {
    const { indexer_n_heads: heads, indexer_head_dim: dims, indexer_budget, indexer_compress_ratio: block } = this.args;
    const [blocks, open] = caches as [KeyValueCache?, ArraysCache?];
    const most = indexer_budget / block;
    const [q, own] = splitHeads(this.index_qk_proj.forward(x), heads + 1).split([heads], 1) as [Tensor, Tensor];
    const groups = closedPools(own.squeeze(1), block, offset, 0, open).astype("float32").mean({ axis: 2 });
    const normed = this.k_layernorm.forward(groups.astype(x.dtype)).expandDims(1);
    const closed = normed.dim(2) > 0 ? this.rope.forward(normed, Math.floor(offset / block)) : normed;
    const [keys] = (blocks?.update(closed, noFeatures(closed)) ?? [closed]) as [Tensor];
    if (keys.dim(2) <= most) return null;
    const queries = turned(this.q_layernorm.forward(q)).astype("float32");
    const products = queries.matmul(keys.astype("float32").swapaxes(-1, -2));
    const scores = mx.maximum(products, 0).sum({ axis: 1, keepdims: true }).divide(Math.sqrt(dims));
    return mx.stopGradient(tokensOfBest(scores, most, block, offset));
  }
}

class IndexedAttention extends qwen3_5.GatedAttention {
  indexer: BlockIndexer;

  constructor(args: Args) {
    super(args);
    const { head_dim: headDim, rms_norm_eps: eps } = args;
    for (const plain of [this.q_norm, this.k_norm]) plain.dispose();
    this.q_norm = new CentredNorm(headDim, eps);
    this.k_norm = new CentredNorm(headDim, eps);
    this.indexer = new BlockIndexer(args);
  }

  /** x (B, T, D) → (B, T, D) */
  attend(x: Tensor, mask: Mask, cache?: CompressedCache): Tensor {
    const [tokens, ...others] = (cache?.parts ?? []) as [KeyValueCache?, ...Cache[]];
    const offset = (tokens?.offset ?? 0) as number;
    const chosen = this.indexer.choose(x, offset, (heads) => this.rope.forward(heads, offset), others);
    const out = super.forward(x, chosen ?? mask, tokens);
    // Otherwise what the indexer holds would stay a graph that grows with each step.
    return cache ? (mx.depends([out], heldBy(others)) as [Tensor])[0] : out;
  }
}

const heldBy = (caches: readonly Cache[]): Tensor[] =>
  mx.treeFlatten(caches.map(({ state }) => state) as mx.Tree).map(([, tensor]) => tensor);

const tokensMask: MaskRule<CompressedCache> = {
  key: "tokens",
  make: (h, cache) => attentionMask(h, cache?.parts[0] as KeyValueCache, { asArray: true }),
};

class Block extends Module implements DecoderLayer<CompressedCache> {
  linear_attn?: GatedDeltaNet;
  self_attn?: IndexedAttention;
  mlp: Layer;
  ple?: NgramLayer;
  attn_hyper_connection: StreamConnection;
  mlp_hyper_connection: StreamConnection;
  readonly mask: MaskRule<CompressedCache>;

  constructor(args: Args, index: number) {
    super();
    const isAttention = attends(args, index);
    if (isAttention) this.self_attn = new IndexedAttention(args);
    else {
      const gate = args.output_gate_type ?? args.hidden_act;
      this.linear_attn = new GatedDeltaNet({ ...qwen3_5.deltaSizes(args), gate });
    }
    this.mlp = qwen3_5.feedForward(args);
    const tables = [...new Set(args.ple_layer_ids ?? [])].sort((a, b) => a - b);
    const table = tables.indexOf(index + 1);
    if (table >= 0) this.ple = new NgramLayer(args, table);
    this.attn_hyper_connection = new StreamConnection(args);
    this.mlp_hyper_connection = new StreamConnection(args);
    this.mask = isAttention ? tokensMask : noMask;
  }

  /** The stream is (B, T, S, D). @param ids the tokens (B, T) */
  forward(x: Residual, mask: Mask, cache?: CompressedCache, ids?: Tensor): Residual {
    const arrays = cache?.parts[0] as ArraysCache | undefined;
    const entering = this.ple ? x.value.add(this.ple.forward(x.value, ids!, arrays)) : x.value;
    const attended = this.attn_hyper_connection.around(
      entering,
      (read) => this.self_attn?.attend(read, mask, cache) ?? this.linear_attn!.forward(read, null, arrays),
    );
    return new Residual(this.mlp_hyper_connection.around(attended, (read) => this.mlp.forward(read)));
  }

  makeCache(): CompressedCache {
    return new LoneCacheList<Cache>(
      this.linear_attn ? [new ArraysCache(this.ple ? 4 : 2)] : [new KVCache(), new KVCache(), new ArraysCache(1)],
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
    const x = inputEmbeddings ?? this.embedding.forward(inputs);
    const blocks = this.layers as Block[];
    const rules = blocks.map(({ mask }) => mask);
    const masks = layerMasks(x, rules, cache);
    const first = new Residual(streamsOf(x, this.streams));
    return blocks.reduce((h, block, i) => block.forward(h, masks[i]!, cache?.[i], inputs), first);
  }
}

class TextModel extends CausalLM<CompressedCache> {
  readonly #args: Args;

  constructor(args: Args) {
    super(args, (index) => new Block(args, index), {
      norm: () => new StreamReader(args),
      names: { norm: "hyper_connection_mixer" },
      decoder: (...parts) => new StreamDecoder(args.hc_count, ...parts),
    });
    this.#args = args;
  }

  /** Rows of a batch have blocks that end at other tokens: they are read one after the other. */
  override forward(inputs: Tensor, options: ForwardOptions<CompressedCache> = {}): Tensor {
    return rowByRow(inputs, options, this.vocabSize, (row, own) => super.forward(row, own));
  }

  /** Joins the tables of n-grams, splits and stacks the experts, turns convolutions; draft layers go. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const own = [...super.sanitize(weights)].filter(([name]) => !name.includes("mtp."));
    const sanitized = joinTables(qwen3_5.splitGates(new Map(own)));
    for (const [name, weight] of sanitized) {
      if (name.endsWith("conv1d.weight") && weight.shape.at(-1) !== 1) sanitized.set(name, mx.moveaxis(weight, 2, 1));
    }
    for (const layer of this.layers.keys()) {
      const mlp = `model.layers.${layer}.mlp`;
      stackExperts(sanitized, { count: this.#args.num_experts, from: `${mlp}.experts`, to: `${mlp}.switch_mlp` });
    }
    return sanitized;
  }
}

export class Model extends NestedLM {
  constructor(args: Args) {
    super(new TextModel(args));
  }
}

export const { quantize, keepsDtype, joins } = qwen3_5;

export const gguf = qwen4exp();
