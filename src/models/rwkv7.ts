/**
 * RWKV-7: no attention; each layer mixes a token with the one before it, and carries a state by a generalized delta rule.
 * Peng et al. 2025, arXiv:2503.14456.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  ArraysCache,
  channelDeltaRule,
  type DecoderLayer,
  type Divisible,
  divideInner,
  type ForwardOptions,
  isSliceable,
  keepOutputs,
  keepPlaces,
  type Layer,
  LayerNorm,
  Linear,
  layerMasks,
  type Mask,
  Module,
  parameter,
  Residual,
  recurrent,
  type Split,
  SumOfParts,
  scaled,
  shareHeads,
  squaredRelu,
} from "../nn";
import { size } from "./args";
import type { TensorChange } from "./gguf/changes";
import { precise } from "./gguf/decoder";
import { f32, type GgufFacts, u32 } from "./gguf/facts";
import { TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { CausalLM } from "./language-model";

export const Args = z
  .object({
    vocab_size: size,
    hidden_size: size,
    intermediate_size: size,
    norm_eps: z.number().positive(),
    head_dim: size,
    num_hidden_layers: size,
    a_low_rank_dim: size,
    v_low_rank_dim: size,
    gate_low_rank_dim: size,
    decay_low_rank_dim: size,
    tie_word_embeddings: z.boolean().default(false),
  })
  .superRefine(({ hidden_size: dims, head_dim: headDim }, context) => {
    if (dims % headDim === 0) return;
    const message = `is ${headDim}, but must divide "hidden_size" (${dims})`;
    context.addIssue({ code: "custom", path: ["head_dim"], message });
  });

type Args = z.infer<typeof Args>;

/** The tokens before x (B, T, D), the first of which is in the cache's place; and what that has to keep for the next call. */
function shifted(x: Tensor, cache: ArraysCache | undefined, place = 0): [before: Tensor, last: Tensor] {
  const [batch, length, dims] = x.shape as [number, number, number];
  const all = mx.concatenate([cache?.get(place) ?? mx.zeros([batch, 1, dims], x.dtype), x], { axis: 1 });
  const lengths = cache?.lengthsWithin(length);
  const last = lengths
    ? mx.takeAlongAxis(all, mx.array(lengths, "int32", [batch, 1, 1]), { axis: 1 })
    : mx.sliceAxis(all, 1, length, length + 1);
  return [mx.sliceAxis(all, 1, 0, length), last];
}

/** Two thin linear layers. The first and the last of the list have weights; what is between them has none. */
class LowRank extends Module {
  lora: (Layer | null)[];

  constructor(
    dims: number,
    rank: number,
    readonly activation: ((x: Tensor) => Tensor) | null,
    { bias = true } = {},
  ) {
    super();
    this.lora = [new Linear(dims, rank, { bias: false }), null, new Linear(rank, dims, { bias })];
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    const [first, , last] = this.lora;
    const narrow = first!.forward(x);
    return last!.forward(this.activation?.(narrow) ?? narrow);
  }
}

/** LayerNorm of each head, with weights of its own. */
class HeadNorm extends Module {
  weight: Tensor;
  bias: Tensor;

  constructor(heads: number, headDim: number) {
    super();
    this.weight = parameter(mx.zeros([heads, headDim]));
    this.bias = parameter(mx.zeros([heads, headDim]));
  }

  /** x (B, T, H, D) → (B, T, H, D) */
  forward(x: Tensor): Tensor {
    return this.weight.multiply(mx.fast.layerNorm(x, null, null, 64e-5)).add(this.bias);
  }
}

/** The fastest that a channel may fade, e^−0.5 in a logarithm. */
const fastest = -0.606531;

class TimeMixing extends Module implements Divisible {
  /** What of the token before goes into each of the six parts, (1, 1, D). */
  x_r: Tensor;
  x_w: Tensor;
  x_k: Tensor;
  x_v: Tensor;
  x_a: Tensor;
  x_g: Tensor;
  /** Factors of each head's keys, (H, headDim). */
  k_k: Tensor;
  k_a: Tensor;
  r_k: Tensor;
  r_proj: Layer;
  k_proj: Layer;
  v_proj: Layer;
  o_proj: Layer;
  g_norm: HeadNorm;
  w_lora: LowRank;
  v_lora?: LowRank;
  a_lora: LowRank;
  g_lora: LowRank;
  readonly heads: number;
  readonly headDim: number;

  constructor(args: Args, index: number) {
    super();
    const { hidden_size: D, head_dim: headDim } = args;
    const heads = D / headDim;
    const mixed = () => parameter(mx.zeros([1, 1, D]));
    const perHead = () => parameter(mx.zeros([heads, headDim]));
    this.x_r = mixed();
    this.x_w = mixed();
    this.x_k = mixed();
    this.x_v = mixed();
    this.x_a = mixed();
    this.x_g = mixed();
    this.k_k = perHead();
    this.k_a = perHead();
    this.r_k = perHead();
    this.r_proj = new Linear(D, D, { bias: false });
    this.k_proj = new Linear(D, D, { bias: false });
    this.v_proj = new Linear(D, D, { bias: false });
    this.o_proj = new Linear(D, D, { bias: false });
    this.g_norm = new HeadNorm(heads, headDim);
    this.w_lora = new LowRank(D, args.decay_low_rank_dim, mx.tanh);
    if (index > 0) this.v_lora = new LowRank(D, args.v_low_rank_dim, null);
    this.a_lora = new LowRank(D, args.a_low_rank_dim, null);
    this.g_lora = new LowRank(D, args.gate_low_rank_dim, mx.sigmoid, { bias: false });
    this.heads = heads;
    this.headDim = headDim;
  }

  /** Values of x (B, T, D) by heads, (B, T, H, headDim). The cache stays as it is. */
  values(x: Tensor, cache?: ArraysCache): Tensor {
    const [before] = shifted(x, cache);
    return this.#byHead(this.v_proj.forward(x.add(before.subtract(x).multiply(this.x_v))));
  }

  /** Leaves a rank's heads. */
  shard(split: Split): void {
    const { heads, headDim, r_proj, k_proj, v_proj, o_proj: last } = this;
    const thin = [this.w_lora, this.v_lora, this.a_lora, this.g_lora].flatMap((part) => part?.lora[2] ?? []);
    const layers: Layer[] = [r_proj, k_proj, v_proj, ...thin];
    if (!isSliceable(last) || !layers.every(isSliceable)) return;
    const share = shareHeads(heads, heads, split);
    const own = scaled(share.queries, headDim);
    for (const layer of layers) if (isSliceable(layer)) keepOutputs(layer, [own]);
    keepPlaces(this, ["k_k", "k_a", "r_k"], 0, [share.queries]);
    keepPlaces(this.g_norm, ["weight", "bias"], 0, [share.queries]);
    this.o_proj = new SumOfParts(last as never, own, split, share);
    Object.assign(this, { heads: share.queries[1] - share.queries[0] });
  }

  #byHead(x: Tensor): Tensor {
    return mx.unflatten(x, -1, [this.heads, this.headDim]);
  }

  /**
   * x (B, T, D), own (B, T): which tokens are a row's own, first (B, T, H, headDim): the values of the first layer
   * → (B, T, D)
   */
  forward(x: Tensor, own: Tensor | null, first: Tensor, cache?: ArraysCache): Tensor {
    const [before, last] = shifted(x, cache);
    cache?.put(0, last);
    const change = before.subtract(x);
    const mixed = (share: Tensor) => x.add(change.multiply(share));
    const byHead = (part: Tensor) => this.#byHead(part);

    const receptance = byHead(this.r_proj.forward(mixed(this.x_r)));
    const key = byHead(this.k_proj.forward(mixed(this.x_k)));
    const value = this.v_lora ? this.#blended(mixed(this.x_v), first, this.v_lora) : first;
    const rate = byHead(this.a_lora.forward(mixed(this.x_a)).sigmoid());
    const gate = this.g_lora.forward(mixed(this.x_g));
    const decay = byHead(this.w_lora.forward(mixed(this.x_w)).sigmoid())
      .astype("float32")
      .multiply(fastest);

    const removed = ofLengthOne(key.multiply(this.k_k));
    const written = key.multiply(rate.subtract(1).multiply(this.k_a).add(1));
    const [y, state] = channelDeltaRule(
      {
        r: receptance,
        k: written,
        v: value,
        // The rule reads the faded state, this model the one before it faded.
        a: removed.astype("float32").negative().divide(decay.exp()),
        b: removed.multiply(rate),
        decay,
      },
      cache?.get(1) ?? null,
      own,
    );
    cache?.put(1, state);

    const bonus = receptance.multiply(written).multiply(this.r_k).sum({ axis: -1, keepdims: true }).multiply(value);
    const out = this.g_norm.forward(y).add(bonus).flatten(-2, -1);
    return this.o_proj.forward(out.multiply(gate));
  }

  /** The layer's own values, from what is mixed for them, and the first layer's, by shares of its own. */
  #blended(x: Tensor, first: Tensor, shares: LowRank): Tensor {
    const value = this.#byHead(this.v_proj.forward(x));
    return value.add(first.subtract(value).multiply(this.#byHead(shares.forward(x).sigmoid())));
  }
}

/** x (…, D) / ‖x‖ */
const ofLengthOne = (x: Tensor): Tensor => x.divide(x.square().sum({ axis: -1, keepdims: true }).sqrt().maximum(1e-7));

class ChannelMixing extends Module implements Divisible {
  key: Layer;
  value: Layer;
  /** What of the token before goes in, (D). */
  x_k: Tensor;

  constructor({ hidden_size: D, intermediate_size: hidden }: Args) {
    super();
    this.key = new Linear(D, hidden, { bias: false });
    this.value = new Linear(hidden, D, { bias: false });
    this.x_k = parameter(mx.zeros([D]));
  }

  shard(split: Split): void {
    this.value = divideInner(this.value, [this.key], split);
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor, cache?: ArraysCache): Tensor {
    const [before, last] = shifted(x, cache, 2);
    cache?.put(2, last);
    const mixed = x.add(before.subtract(x).multiply(this.x_k));
    return this.value.forward(squaredRelu(this.key.forward(mixed)));
  }
}

class Block extends Module implements DecoderLayer<ArraysCache> {
  pre_norm?: LayerNorm;
  attn: TimeMixing;
  ffn: ChannelMixing;
  attn_norm: LayerNorm;
  ffn_norm: LayerNorm;
  readonly mask = recurrent;

  constructor(args: Args, index: number) {
    super();
    const { hidden_size: D, norm_eps: eps } = args;
    if (index === 0) this.pre_norm = new LayerNorm(D, eps);
    this.attn = new TimeMixing(args, index);
    this.ffn = new ChannelMixing(args);
    this.attn_norm = new LayerNorm(D, eps);
    this.ffn_norm = new LayerNorm(D, eps);
  }

  /** What the first layer's values are made of, x (B, T, D), is the same for all layers: (B, T, H, headDim) */
  values(x: Tensor, own: Tensor | null, cache?: ArraysCache): Tensor {
    return this.attn.values(kept(this.attn_norm.forward(this.#entering(new Residual(x)).value), own), cache);
  }

  #entering(x: Residual): Residual {
    return this.pre_norm ? new Residual(x.branch(this.pre_norm)) : x;
  }

  /** @param first the values of the first layer, (B, T, H, headDim) */
  forward(x: Residual, mask: Mask, cache?: ArraysCache, first?: Tensor): Residual {
    const own = mask as Tensor | null;
    const entering = this.#entering(x);
    const branch = kept(entering.branch(this.attn_norm), own);
    const h = entering.plus(this.attn.forward(branch, own, first!, cache));
    const out = h.plus(this.ffn.forward(kept(h.branch(this.ffn_norm), own), cache));
    cache?.advance(branch.dim(1));
    return out;
  }

  makeCache(): ArraysCache {
    return new ArraysCache(3);
  }
}

/** x (B, T, D) with zeros for padding: nothing stands before a row's first token. */
const kept = (x: Tensor, own: Tensor | null) => (own ? mx.where(own.expandDims(-1), x, 0) : x);

export class Model extends CausalLM<ArraysCache> {
  readonly headDim: number;

  constructor(args: Args) {
    super({ ...args, rms_norm_eps: args.norm_eps }, (index) => new Block(args, index), {
      names: { embedding: "embeddings" },
      norm: (dims, eps) => new LayerNorm(dims, eps),
    });
    this.headDim = args.head_dim;
  }

  override hidden(inputs: Tensor, { cache, inputEmbeddings }: ForwardOptions<ArraysCache> = {}): Tensor {
    const blocks = this.layers as Block[];
    const x = inputEmbeddings ?? this.model.embedding.forward(inputs);
    const [own] = layerMasks(x, [recurrent], cache) as [Tensor | null];
    const first = blocks[0]!.values(x, own, cache?.[0]);
    const out = blocks.reduce((h, block, i) => block.forward(h, own, cache?.[i], first), new Residual(x));
    return out.branch(this.model.lastNorm);
  }

  /** Gives each head its row of the factors that checkpoints have in one. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const entries = [...super.sanitize(weights)].map(([name, weight]): [string, Tensor] => {
      const isByHead = /attn\.(k_k|k_a|g_norm\.weight|g_norm\.bias)$/.test(name);
      return [name, isByHead ? weight.reshape(-1, this.headDim) : weight];
    });
    return new Map(entries);
  }
}

/** What decays and gates are made by is thin, and the embedding is large but read by rows: both stay at 8 bits. */
export function quantize(path: string): { groupSize: number; bits: number } | undefined {
  return /lora\.2|embeddings/.test(path) ? { groupSize: 64, bits: 8 } : undefined;
}

/** Factors by heads, (H, headDim), are one row in files. */
const byHead = (headDim: number): TensorChange => ({
  read: (x) => x.reshape(-1, headDim),
  write: (x) => x.flatten(),
});

/** One row, whatever the axes of length one that files have. */
const oneRow: TensorChange = { read: (x) => x.flatten(), write: (x) => x };

/** Two thin layers by their numbers; what is added, of those that have it, is called 0. */
const thin = (part: string) => ({
  layer: { [`time_mix_${part}1`]: `attn.${part}_lora.lora.0`, [`time_mix_${part}2`]: `attn.${part}_lora.lora.2` },
  parameters: part === "g" ? {} : { [`time_mix_${part}0.weight`]: `attn.${part}_lora.lora.2.bias` },
});

const thinParts = ["w", "a", "v", "g"].map(thin);

/** What llama.cpp's converter says of the length of contexts, which have no limit. */
const anyLength = 2 ** 20;

export const gguf: GgufFacts = {
  architecture: "rwkv7",
  names: new TensorNames(
    {
      attn_norm: "attn_norm",
      attn_norm_2: "ffn_norm",
      time_mix_receptance: "attn.r_proj",
      time_mix_key: "attn.k_proj",
      time_mix_value: "attn.v_proj",
      time_mix_output: "attn.o_proj",
      time_mix_ln: "attn.g_norm",
      channel_mix_key: "ffn.key",
      channel_mix_value: "ffn.value",
      ...Object.assign({}, ...thinParts.map(({ layer }) => layer)),
    },
    {
      parameters: {
        "time_mix_k_k.weight": "attn.k_k",
        "time_mix_k_a.weight": "attn.k_a",
        "time_mix_r_k.weight": "attn.r_k",
        "channel_mix_lerp_k.weight": "ffn.x_k",
        ...Object.assign({}, ...thinParts.map(({ parameters }) => parameters)),
      },
      outer: { token_embd: "model.embeddings", token_embd_norm: "model.layers.0.pre_norm" },
    },
  ),
  normOffset: 0,
  changes(config) {
    const own = byHead((config as Args).head_dim);
    return { "attn.k_k": own, "attn.k_a": own, "attn.r_k": own, "attn.g_norm": own, "ffn.x_k": oneRow };
  },
  stacked: (config) =>
    Object.fromEntries(
      Array.from({ length: (config as Args).num_hidden_layers }, (_, layer) => [
        `blk.${layer}.time_mix_lerp_fused.weight`,
        ["r", "w", "k", "v", "a", "g"].map((part) => `model.layers.${layer}.attn.x_${part}`),
      ]),
    ),
  idle(config) {
    const { hidden_size: dims, a_low_rank_dim: rank } = config as Args;
    return {
      "blk.0.time_mix_v0.weight": [dims],
      "blk.0.time_mix_v1.weight": [rank, dims],
      "blk.0.time_mix_v2.weight": [dims, rank],
    };
  },
  read: (file) => ({
    vocab_size: file.shape("token_embd.weight")?.[0] ?? file.wrong("there is no token_embd.weight"),
    hidden_size: file.need("embedding_length"),
    intermediate_size: file.need("feed_forward_length"),
    num_hidden_layers: file.need("block_count"),
    norm_eps: precise(file.need("attention.layer_norm_epsilon")),
    head_dim: file.need("wkv.head_size"),
    a_low_rank_dim: file.need("attention.iclr_lora_rank"),
    v_low_rank_dim: file.need("attention.value_residual_mix_lora_rank"),
    gate_low_rank_dim: file.need("attention.gate_lora_rank"),
    decay_low_rank_dim: file.need("attention.decay_lora_rank"),
    tie_word_embeddings: false,
  }),
  write(config) {
    const args = config as Args;
    if (args.tie_word_embeddings) noPlace('"tie_word_embeddings" true');
    return {
      fields: {
        context_length: u32(anyLength),
        embedding_length: u32(args.hidden_size),
        feed_forward_length: u32(args.intermediate_size),
        block_count: u32(args.num_hidden_layers),
        "attention.head_count": u32(0),
        "attention.layer_norm_epsilon": f32(args.norm_eps),
        "wkv.head_size": u32(args.head_dim),
        "attention.decay_lora_rank": u32(args.decay_low_rank_dim),
        "attention.iclr_lora_rank": u32(args.a_low_rank_dim),
        "attention.value_residual_mix_lora_rank": u32(args.v_low_rank_dim),
        "attention.gate_lora_rank": u32(args.gate_low_rank_dim),
      },
      tensors: {},
    };
  },
};
