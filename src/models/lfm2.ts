/**
 * LFM 2: gated short convolutions over the last few tokens, and between them a few layers of attention with norms on the
 * heads of queries and keys. The head is the embedding.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  ArraysCache,
  attention,
  type Cache,
  type CacheOptions,
  CausalConv1d,
  type DecoderLayer,
  divideHeads,
  divideInner,
  Embedding,
  type ForwardOptions,
  initializeRope,
  type Joins,
  joinHeads,
  type KeyValueCache,
  type Layer,
  Linear,
  layerCaches,
  type Mask,
  Module,
  project,
  projectHeads,
  type Residual,
  RMSNorm,
  type RotaryEmbedding,
  recurrent,
  type Split,
  swiglu,
  throughLayers,
  usualJoins,
} from "../nn";
import { checkHeads, headsOf, ropeFields, ropeOf, size } from "./args";
import type { AwqFacts } from "./awq-facts";
import { convolution } from "./gguf/changes";
import { type DecoderSettings, decoder } from "./gguf/decoder";
import { type GgufDescription, type GgufFacts, u32 } from "./gguf/facts";
import { TensorNames } from "./gguf/names";
import type { LanguageModel } from "./language-model";

/** What the layers around the feed-forward blocks take. */
export const hybridFields = {
  vocab_size: size,
  hidden_size: size,
  num_hidden_layers: size,
  num_attention_heads: size,
  num_key_value_heads: size.nullish(),
  max_position_embeddings: size.nullish(),
  norm_eps: z.number().positive(),
  conv_bias: z.boolean(),
  /** Tokens that a convolution sees. */
  conv_L_cache: size,
  ...ropeFields,
  /** Which layers attend, one by one or by their numbers. */
  layer_types: z.array(z.enum(["conv", "full_attention"])).nullish(),
  full_attn_idxs: z.array(z.int().nonnegative()).nullish(),
};

export type HybridArgs = z.infer<z.ZodObject<typeof hybridFields>>;

/** For `superRefine`: it must be said of each layer what it is. */
export function checkLayers(args: HybridArgs, context: z.RefinementCtx): void {
  const { layer_types: types, full_attn_idxs: attending, num_hidden_layers: count } = args;
  const problem = (message: string) => context.addIssue({ code: "custom", path: ["layer_types"], message });
  if (!types && !attending) problem(`is missing, and so is "full_attn_idxs"`);
  if (types && types.length !== count) problem(`has ${types.length} entries, but "num_hidden_layers" is ${count}`);
}

export const Args = z
  .object({
    ...hybridFields,
    /** Width of a feed-forward block, ahead of what the next fields make of it. */
    block_ff_dim: size.nullish(),
    intermediate_size: size.nullish(),
    block_auto_adjust_ff_dim: z.boolean().default(true),
    block_ffn_dim_multiplier: z.number().positive().nullish(),
    block_multiple_of: size.default(256),
  })
  .superRefine(checkHeads)
  .superRefine(checkLayers)
  .superRefine(({ block_ff_dim, intermediate_size }, context) => {
    if (block_ff_dim || intermediate_size) return;
    context.addIssue({ code: "custom", path: ["block_ff_dim"], message: `is missing, and so is "intermediate_size"` });
  });

type Args = z.infer<typeof Args>;

class Attention extends Module {
  q_layernorm: RMSNorm;
  k_layernorm: RMSNorm;
  q_proj: Layer;
  k_proj: Layer;
  v_proj: Layer;
  out_proj: Layer;
  readonly rope: RotaryEmbedding;
  readonly heads: number;
  readonly kvHeads: number;
  readonly scale: number;

  constructor(args: HybridArgs) {
    super();
    const { hidden_size: D, norm_eps: eps } = args;
    const { heads, kvHeads, headDim } = headsOf(args);
    this.q_layernorm = new RMSNorm(headDim, eps);
    this.k_layernorm = new RMSNorm(headDim, eps);
    this.q_proj = new Linear(D, heads * headDim, { bias: false });
    this.k_proj = new Linear(D, kvHeads * headDim, { bias: false });
    this.v_proj = new Linear(D, kvHeads * headDim, { bias: false });
    this.out_proj = new Linear(heads * headDim, D, { bias: false });
    this.rope = initializeRope(ropeOf(args, { base: 1_000_000 }));
    this.heads = heads;
    this.kvHeads = kvHeads;
    this.scale = headDim ** -0.5;
  }

  get q_norm(): RMSNorm {
    return this.q_layernorm;
  }

  get k_norm(): RMSNorm {
    return this.k_layernorm;
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const [q, k, v] = projectHeads(x, [this.q_proj, this.k_proj, this.v_proj], this, cache?.offset);
    return this.out_proj.forward(joinHeads(attention(q, k, v, { scale: this.scale, mask, cache })));
  }

  shard(split: Split): void {
    divideHeads(this, split, { names: ["q_proj", "k_proj", "v_proj", "out_proj"] });
  }
}

/** out(c · conv(b · x)): what enters the convolution and what leaves it pass gates of the same token. */
class ShortConv extends Module {
  conv: CausalConv1d;
  in_proj: Layer;
  out_proj: Layer;

  constructor({ hidden_size: D, conv_L_cache: kernelSize, conv_bias: bias }: HybridArgs) {
    super();
    this.conv = new CausalConv1d(D, kernelSize, { bias });
    this.in_proj = new Linear(D, 3 * D, { bias });
    this.out_proj = new Linear(D, D, { bias });
  }

  /** x (B, T, D), own (B, T): which tokens are a row's own → (B, T, D) */
  forward(x: Tensor, own: Tensor | null, cache?: ArraysCache): Tensor {
    const length = x.dim(1);
    const [opening, gate, values] = this.in_proj.forward(x).split(3, -1) as [Tensor, Tensor, Tensor];
    const lengths = cache?.lengthsWithin(length);
    const [y, recent] = this.conv.forward(values, { before: cache?.get(0), own, lengths, opening, gate });
    cache?.put(0, recent);
    cache?.advance(length);
    return this.out_proj.forward(y);
  }
}

/** w2(silu(w1(x)) · w3(x)) */
class MLP extends Module {
  w1: Layer;
  w3: Layer;
  w2: Layer;

  constructor(dims: number, hiddenDims: number) {
    super();
    this.w1 = new Linear(dims, hiddenDims, { bias: false });
    this.w3 = new Linear(dims, hiddenDims, { bias: false });
    this.w2 = new Linear(hiddenDims, dims, { bias: false });
  }

  /** x (…, D) → (…, D) */
  forward(x: Tensor): Tensor {
    const [gate, up] = project(x, [this.w1, this.w3]) as [Tensor, Tensor];
    return this.w2.forward(swiglu(gate, up));
  }

  shard(split: Split): void {
    this.w2 = divideInner(this.w2, [this.w1, this.w3], split);
  }
}

class AttentionBlock extends Module implements DecoderLayer {
  self_attn: Attention;
  operator_norm: RMSNorm;
  ffn_norm: RMSNorm;

  constructor(
    args: HybridArgs,
    readonly feed_forward: Layer,
  ) {
    super();
    this.self_attn = new Attention(args);
    this.operator_norm = new RMSNorm(args.hidden_size, args.norm_eps);
    this.ffn_norm = new RMSNorm(args.hidden_size, args.norm_eps);
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const h = x.plus(this.self_attn.forward(x.branch(this.operator_norm), mask, cache));
    return h.plus(this.feed_forward.forward(h.branch(this.ffn_norm)));
  }
}

class ConvBlock extends Module implements DecoderLayer<ArraysCache> {
  conv: ShortConv;
  operator_norm: RMSNorm;
  ffn_norm: RMSNorm;
  readonly mask = recurrent;

  constructor(
    args: HybridArgs,
    readonly feed_forward: Layer,
  ) {
    super();
    this.conv = new ShortConv(args);
    this.operator_norm = new RMSNorm(args.hidden_size, args.norm_eps);
    this.ffn_norm = new RMSNorm(args.hidden_size, args.norm_eps);
  }

  forward(x: Residual, own: Mask, cache?: ArraysCache): Residual {
    const h = x.plus(this.conv.forward(x.branch(this.operator_norm), own as Tensor | null, cache));
    return h.plus(this.feed_forward.forward(h.branch(this.ffn_norm)));
  }

  makeCache(): ArraysCache {
    return new ArraysCache(1);
  }
}

type AnyCache = KeyValueCache | ArraysCache;

const attendsAt = ({ full_attn_idxs: attending, layer_types: types }: HybridArgs, index: number): boolean =>
  attending?.includes(index) ?? types?.[index] === "full_attention";

class Trunk extends Module {
  embed_tokens: Embedding;
  layers: DecoderLayer<AnyCache>[];
  embedding_norm: RMSNorm;

  constructor(args: HybridArgs, feedForward: (index: number) => Layer) {
    super();
    this.embed_tokens = new Embedding(args.vocab_size, args.hidden_size);
    this.layers = Array.from({ length: args.num_hidden_layers }, (_, index): DecoderLayer<AnyCache> => {
      const Block = attendsAt(args, index) ? AttentionBlock : ConvBlock;
      return new Block(args, feedForward(index));
    });
    this.embedding_norm = new RMSNorm(args.hidden_size, args.norm_eps);
  }
}

/** The language model, with a feed-forward block of its own kind for each layer. */
export class ShortConvLM extends Module implements LanguageModel {
  model: Trunk;

  constructor(args: HybridArgs, feedForward: (index: number) => Layer) {
    super();
    this.model = new Trunk(args, feedForward);
  }

  get layers(): DecoderLayer<AnyCache>[] {
    return this.model.layers;
  }

  get vocabSize(): number {
    return this.model.embed_tokens.weight.dim(0);
  }

  forward(inputs: Tensor, { cache, inputEmbeddings }: ForwardOptions<AnyCache> = {}): Tensor {
    const { embed_tokens, layers, embedding_norm } = this.model;
    const x = inputEmbeddings ?? embed_tokens.forward(inputs);
    return embed_tokens.asLinear(throughLayers(x, layers, cache).branch(embedding_norm));
  }

  /** Convolutions as (C, K, 1): other programs save them as (C, 1, K). A head that repeats the embedding goes. */
  sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const turned = (name: string, weight: Tensor) => name.endsWith("conv.conv.weight") && weight.dim(-1) !== 1;
    const sanitized = new Map<string, Tensor>();
    for (const [name, weight] of weights) {
      if (name === "lm_head.weight") continue;
      sanitized.set(name, turned(name, weight) ? weight.swapaxes(1, 2) : weight);
    }
    return sanitized;
  }

  makeCache(options?: CacheOptions): Cache[] {
    return layerCaches(this.layers, options);
  }
}

/** Two thirds of what the configuration says, times a factor, rounded up to a multiple. */
function feedForwardDims(args: Args): number {
  const dims = (args.block_ff_dim ?? args.intermediate_size)!;
  if (!args.block_auto_adjust_ff_dim) return dims;
  const adjusted = Math.trunc((args.block_ffn_dim_multiplier ?? 1) * Math.trunc((2 * dims) / 3));
  return args.block_multiple_of * Math.ceil(adjusted / args.block_multiple_of);
}

export class Model extends ShortConvLM {
  constructor(args: Args) {
    super(args, () => new MLP(args.hidden_size, feedForwardDims(args)));
  }
}

export const joins: Joins = [...usualJoins, ["w1", "w3"]];

export const awq: AwqFacts = {
  noClip: ["q_proj", "k_proj"],
  groups: [
    {
      before: "operator_norm",
      layers: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
      part: "self_attn",
    },
    { before: "operator_norm", layers: ["conv.in_proj"], part: "conv" },
    { before: "feed_forward.w3", layers: ["feed_forward.w2"] },
    { before: "ffn_norm", layers: ["feed_forward.w1", "feed_forward.w3"], part: "feed_forward" },
  ],
};

/** The parts of a layer ahead of its feed-forward block, in GGUF files. */
export const mixingLayer = {
  attn_norm: "operator_norm",
  attn_q: "self_attn.q_proj",
  attn_k: "self_attn.k_proj",
  attn_v: "self_attn.v_proj",
  attn_output: "self_attn.out_proj",
  attn_q_norm: "self_attn.q_layernorm",
  attn_k_norm: "self_attn.k_layernorm",
  "shortconv.conv": "conv.conv",
  "shortconv.in_proj": "conv.in_proj",
  "shortconv.out_proj": "conv.out_proj",
  ffn_norm: "ffn_norm",
};

/** The last norm. */
export const embeddingNorm = { token_embd_norm: "model.embedding_norm" };

/** What the family has in GGUF files: layers without heads of keys are convolutions. */
export const shortConv = {
  epsilon: ["attention.layer_norm_rms_epsilon", "norm_eps"] as const,
  ropeBase: 1_000_000,
  integers: { "shortconv.l_cache": "conv_L_cache", vocab_size: "vocab_size" },
  only: { conv_bias: false },
  changes: () => ({ "conv.conv": convolution }),
  read(file: GgufDescription, { num_hidden_layers: count }: Readonly<Record<string, unknown>>) {
    const heads = file.list("attention.head_count_kv") ?? [];
    const attends = (index: number) => (heads.length === 1 ? heads[0] : heads[index]) !== 0;
    const types = Array.from({ length: count as number }, (_, index) => (attends(index) ? "full_attention" : "conv"));
    return { layer_types: types };
  },
  write(settings: DecoderSettings) {
    const args = settings as unknown as HybridArgs;
    const { kvHeads } = headsOf(args);
    const heads = Array.from({ length: args.num_hidden_layers }, (_, index) => (attendsAt(args, index) ? kvHeads : 0));
    return { "attention.head_count_kv": u32(heads) };
  },
};

/** @param prefix what stands before the names of the checkpoint */
export const facts = (prefix?: string): GgufFacts =>
  decoder("lfm2", {
    names: new TensorNames(
      { ...mixingLayer, ffn_gate: "feed_forward.w1", ffn_up: "feed_forward.w3", ffn_down: "feed_forward.w2" },
      { outer: embeddingNorm, prefix },
    ),
    ...shortConv,
    read: (file, common) => ({
      ...shortConv.read(file, common),
      block_ff_dim: common.intermediate_size,
      block_auto_adjust_ff_dim: false,
    }),
    write(settings) {
      const args = settings as unknown as Args;
      return { ...shortConv.write(settings), feed_forward_length: u32(feedForwardDims(args)) };
    },
  });

export const gguf = facts();
