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
  Embedding,
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
  parameter,
  Residual,
  type RotaryEmbedding,
  silu,
  splitHeads,
  stackExperts,
  streamsOf,
  tokensOfBest,
  ZeroCenteredRMSNorm,
} from "../nn";
import { checkHeads, count, size } from "./args";
import { rowByRow } from "./deepseek_v41";
import { CausalLM } from "./language-model";
import { NestedLM, nestedArgs } from "./nested";
import * as qwen3_5 from "./qwen3_5";

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

const eosOf = ({ eos_token_id: eos }: Pick<Args, "eos_token_id">): number | undefined =>
  (Array.isArray(eos) ? eos[0] : eos) ?? undefined;

const ngramHeads = ({ ngram_size, heads_per_ngram }: Pick<Args, "ngram_size" | "heads_per_ngram">): number =>
  (ngram_size - 1) * heads_per_ngram;

/** RMSNorm, in float32 throughout, of each of the streams (…, S, D) or of one (…, D). */
class CentredNorm extends ZeroCenteredRMSNorm {
  override forward(x: Tensor): Tensor {
    const gain = this.weight.astype("float32").add(1).reshape(-1, x.dim(-1));
    return mx.fast.rmsNorm(x.astype("float32"), null, this.eps).multiply(gain).astype(x.dtype);
  }
}

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

/** Rows of a table by hashes of a token and those ahead of it in its text, several of each length. */
class NgramEmbedding extends Module {
  ngram_embedding: Embedding;
  /** By a token's distance, (N), int64. */
  readonly _factors: Tensor;
  /** How many rows each head has, and where they begin, int64. */
  readonly _rows: Tensor;
  readonly _starts: Tensor;

  /** @param table which of the model's tables it is */
  constructor(
    readonly args: Args,
    table: number,
  ) {
    super();
    const { ngram_size, make_ngram_vocab_size_divisible_by: divisor } = args;
    const heads = ngramHeads(args);
    const rows = primesFrom(args.ngram_vocab_size_base, (table + 1) * heads).slice(-heads);
    const starts = rows.map((_, head) => rows.slice(0, head).reduce((sum, count) => sum + count, 0));
    const total = rows.reduce((sum, count) => sum + count, 0);
    const dims = (args.ple_embed_dim ?? args.hidden_size) / heads;
    this.ngram_embedding = new Embedding(Math.ceil(total / divisor) * divisor, dims);
    const factors = factorsOf(args.vocab_size, ngram_size, BigInt(args.seed) + 10_007n * BigInt(table));
    this._factors = mx.keep(mx.array(factors));
    this._rows = mx.keep(mx.array(rows, "int64"));
    this._starts = mx.keep(mx.array(starts, "int64"));
  }

  /** ids (B, T), before: the N − 1 tokens ahead of them (B, N − 1) → (B, T, Dp) */
  forward(ids: Tensor, before: Tensor): Tensor {
    const { ngram_size: longest, heads_per_ngram: heads } = this.args;
    const eos = eosOf(this.args)!;
    const length = ids.dim(1);
    const all = mx.concatenate([before, ids], { axis: 1 }).astype("int64");
    let token = mx.sliceAxis(all, 1, longest - 1, longest - 1 + length);
    let mixed = token.multiply(this._factors.at(0));
    const found: Tensor[] = [];
    for (let distance = 1; distance < longest; distance++) {
      const first = longest - 1 - distance;
      const earlier = mx.sliceAxis(all, 1, first, first + length);
      // What is ahead of a text's end is another text's.
      token = distance > 1 ? mx.where(token.equal(eos), eos, earlier) : earlier;
      mixed = mx.bitwiseXor(mixed, token.multiply(this._factors.at(distance)));
      const own = mx.slice((distance - 1) * heads, distance * heads);
      found.push(mixed.expandDims(-1).remainder(this._rows.at(own)).add(this._starts.at(own)));
    }
    return this.ngram_embedding.forward(mx.concatenate(found, { axis: -1 }).astype("int32")).flatten(-2);
  }
}

/** Odd numbers below 2⁶³ / vocabulary. */
function factorsOf(vocabulary: number, count: number, seed: bigint): BigInt64Array {
  const mask = (1n << 64n) - 1n;
  const gamma = 0x9e3779b97f4a7c15n;
  const bound = ((1n << 63n) - 1n) / BigInt(vocabulary) / 2n;
  return BigInt64Array.from({ length: count }, (_, index) => {
    // SplitMix64. Steele et al. 2014.
    let x = (seed + gamma * BigInt(index + 2)) & mask;
    x = ((x ^ (x >> 30n)) * 0xbf58476d1ce4e5b9n) & mask;
    x = ((x ^ (x >> 27n)) * 0x94d049bb133111ebn) & mask;
    return 2n * ((x ^ (x >> 31n)) % bound) + 1n;
  });
}

function primesFrom(first: number, count: number): number[] {
  const primes: number[] = [];
  for (let x = first; primes.length < count; x++) if (isPrime(x)) primes.push(x);
  return primes;
}

function isPrime(x: number): boolean {
  if (x < 2) return false;
  for (let divisor = 2; divisor * divisor <= x; divisor++) if (x % divisor === 0) return false;
  return true;
}

/** What the table of n-grams adds to the streams, which gate it; and a convolution of that. */
class NgramLayer extends Module {
  ple_embedding: NgramEmbedding;
  key_proj: Layer;
  value_proj: Layer;
  norm_key: CentredNorm;
  norm_query: CentredNorm;
  norm_conv: CentredNorm;
  conv1d: DilatedConv;

  constructor(
    readonly args: Args,
    table: number,
  ) {
    super();
    const { hc_count, hidden_size: dims, rms_norm_eps: eps } = args;
    const inputs = args.ple_embed_dim ?? dims;
    const all = hc_count * dims;
    this.ple_embedding = new NgramEmbedding(args, table);
    this.key_proj = new Linear(inputs, all, { bias: false });
    this.value_proj = new Linear(inputs, dims, { bias: false });
    this.norm_key = new CentredNorm(all, eps);
    this.norm_query = new CentredNorm(all, eps);
    this.norm_conv = new CentredNorm(all, eps);
    this.conv1d = new DilatedConv(all, args.ple_conv_kernel_size, args.ngram_size);
  }

  /** streams (B, T, S, D), ids (B, T) → what is added to them. The cache's arrays 2 and 3 are its own. */
  forward(streams: Tensor, ids: Tensor, cache?: ArraysCache): Tensor {
    const { hc_count, hidden_size: dims, ngram_size } = this.args;
    const batch = streams.dim(0);
    const before = cache?.get(3) ?? mx.full([batch, ngram_size - 1], eosOf(this.args)!, ids.dtype);
    const rows = this.ple_embedding.forward(ids, before);
    cache?.put(3, latest(mx.concatenate([before, ids], { axis: 1 }), ngram_size - 1));

    const keys = this.norm_key.forward(this.key_proj.forward(rows).unflatten(-1, [hc_count, dims]));
    const products = keys.multiply(this.norm_query.forward(streams)).sum({ axis: -1, keepdims: true });
    const gates = products.divide(Math.sqrt(dims));
    const softened = gates.sign().multiply(mx.maximum(gates.abs(), 1e-6).sqrt()).sigmoid();
    const gated = softened.multiply(this.value_proj.forward(rows).expandDims(-2));
    const [around, after] = this.conv1d.forward(this.norm_conv.forward(gated).flatten(-2), cache?.get(2) ?? null);
    cache?.put(2, after);
    return gated.add(silu(around).unflatten(-1, [hc_count, dims]));
  }
}

/** The last rows of x (B, T, …). */
const latest = (x: Tensor, count: number): Tensor => mx.contiguous(mx.sliceAxis(x, 1, x.dim(1) - count, x.dim(1)));

/** Each channel's inputs some tokens apart, weighted. */
class DilatedConv extends Module {
  /** (C, K, 1) */
  weight: Tensor;

  constructor(
    channels: number,
    readonly taps: number,
    readonly distance: number,
  ) {
    super();
    this.weight = parameter(mx.zeros([channels, taps, 1]));
  }

  /** x (B, T, C), before: what was ahead of it, zeros where null → (B, T, C), and what is ahead of the next */
  forward(x: Tensor, before: Tensor | null): [y: Tensor, after: Tensor] {
    const [batch, length, channels] = x.shape as [number, number, number];
    const kept = (this.taps - 1) * this.distance;
    const all = mx.concatenate([before ?? mx.zeros([batch, kept, channels], x.dtype), x], { axis: 1 });
    const weights = this.weight.astype("float32").squeeze(-1).T;
    const parts = Array.from({ length: this.taps }, (_, tap) => {
      const first = tap * this.distance;
      return mx
        .sliceAxis(all, 1, first, first + length)
        .astype("float32")
        .multiply(weights.at(tap));
    });
    return [parts.reduce((sum, part) => sum.add(part)).astype(x.dtype), latest(all, kept)];
  }
}

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

const shard = /^(.*\.ngram_embedding)\.(?:shard_|shards\.)(\d+)\.(\w+)$/;

/** The parts of each table one behind the other. */
function joinTables(weights: ReadonlyMap<string, Tensor>): Map<string, Tensor> {
  const joined = new Map<string, Tensor>();
  const tables = new Map<string, Tensor[]>();
  for (const [name, weight] of weights) {
    const [, path, index, kind] = shard.exec(name) ?? [];
    if (!path) joined.set(name, weight);
    else {
      const parts = tables.get(`${path}.${kind}`) ?? [];
      parts[Number(index)] = weight;
      tables.set(`${path}.${kind}`, parts);
    }
  }
  for (const [name, parts] of tables) joined.set(name, mx.concatenate(parts));
  // What hashes are made with is no weight.
  for (const name of [...joined.keys()]) if (/\.(layer_multipliers|ngram_heads_\w+)$/.test(name)) joined.delete(name);
  return joined;
}

export class Model extends NestedLM {
  constructor(args: Args) {
    super(new TextModel(args));
  }
}

export const { quantize, keepsDtype, joins } = qwen3_5;
