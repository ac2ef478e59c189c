/**
 * Talkie: norms without weights, also behind the embedding and on queries and keys; a gain on each head, each part and the
 * logits; and the embedding added again in every layer.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  attention,
  type CacheOptions,
  Embedding,
  type ForwardOptions,
  FrequencyRoPE,
  type Joins,
  joinHeads,
  type KeyValueCache,
  type Layer,
  Linear,
  layerCaches,
  type Mask,
  Module,
  NamedMLP,
  type Norm,
  parameter,
  project,
  type Residual,
  type SharingLayer,
  splitHeads,
  swiglu,
  throughSharingLayers,
  yarnFrequencies,
} from "../nn";
import { checkHeads, size } from "./args";
import type { TensorChange } from "./gguf/changes";
import { decoder } from "./gguf/decoder";
import { TensorNames } from "./gguf/names";
import type { LanguageModel } from "./language-model";

export const Args = z
  .object({
    hidden_size: size.default(5120),
    num_hidden_layers: size.default(40),
    num_attention_heads: size.default(40),
    head_dim: size.default(128),
    intermediate_size: size.default(13_696),
    vocab_size: size.default(65_540),
    rope_theta: z.number().positive().default(1_000_000),
    max_position_embeddings: size.default(2048),
    /** What float32 can resolve at one. */
    rms_norm_eps: z
      .number()
      .positive()
      .default(2 ** -23),
  })
  .superRefine(checkHeads);

type Args = z.infer<typeof Args>;

/** RMSNorm without a gain. */
class PlainNorm extends Module implements Norm {
  constructor(readonly eps: number) {
    super();
  }

  forward(x: Tensor): Tensor {
    return mx.fast.rmsNorm(x, null, this.eps);
  }
}

/** A factor on all of x. */
class Gain extends Module {
  a_g: Tensor;

  constructor(start: number) {
    super();
    this.a_g = mx.scope(() => parameter(mx.full([1], start, "float32")));
  }

  forward(x: Tensor): Tensor {
    return x.multiply(this.a_g.astype(x.dtype));
  }
}

class HeadGain extends Module {
  head_g: Tensor;

  constructor(heads: number) {
    super();
    this.head_g = parameter(mx.ones([heads]));
  }

  /** x (B, H, T, D) */
  forward(x: Tensor): Tensor {
    return x.multiply(this.head_g.astype(x.dtype).expandDims([1, 2]));
  }
}

class LogitGain extends Module {
  w_g: Tensor;

  constructor() {
    super();
    this.w_g = parameter(mx.ones([1]));
  }

  forward(x: Tensor): Tensor {
    return x.multiply(this.w_g.astype(x.dtype));
  }
}

class Attention extends Module {
  attn_query: Layer;
  attn_key: Layer;
  attn_value: Layer;
  attn_resid: Layer;
  head_gain: HeadGain;
  /** Turns the other way round than most. */
  readonly _rope: FrequencyRoPE;
  readonly heads: number;
  readonly scale: number;
  readonly eps: number;

  constructor(args: Args) {
    super();
    const { hidden_size: D, num_attention_heads: heads, head_dim: headDim, rope_theta: base } = args;
    const linear = (inputs: number, outputs: number) => new Linear(inputs, outputs, { bias: false });
    this.attn_query = linear(D, heads * headDim);
    this.attn_key = linear(D, heads * headDim);
    this.attn_value = linear(D, heads * headDim);
    this.attn_resid = linear(heads * headDim, D);
    this.head_gain = new HeadGain(heads);
    this._rope = new FrequencyRoPE(headDim, () => yarnFrequencies(headDim, base, { factor: 1 }).negative());
    this.heads = heads;
    this.scale = headDim ** -0.5;
    this.eps = args.rms_norm_eps;
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const projected = project(x, [this.attn_query, this.attn_key, this.attn_value]);
    const [queries, keys, v] = projected.map((part) => splitHeads(part, this.heads)) as [Tensor, Tensor, Tensor];
    const offset = cache?.offset ?? 0;
    const placed = (part: Tensor) => mx.fast.rmsNorm(this._rope.forward(part, offset), null, this.eps);
    const q = this.head_gain.forward(placed(queries));
    const out = attention(q, placed(keys), v, { scale: this.scale, mask, cache });
    return this.attn_resid.forward(joinHeads(out));
  }
}

class Block extends Module implements SharingLayer {
  attn: Attention;
  attn_gain: Gain;
  mlp: NamedMLP;
  mlp_gain: Gain;
  embed_skip: Gain;
  readonly norm: PlainNorm;

  constructor(args: Args) {
    super();
    const { hidden_size: D, intermediate_size: hidden } = args;
    const start = (2 * args.num_hidden_layers) ** -0.5;
    const names = { gate: "mlp_gate", up: "mlp_linear", down: "mlp_resid" };
    this.attn = new Attention(args);
    this.attn_gain = new Gain(start);
    this.mlp = new NamedMLP(D, hidden, { names, bias: false, activation: swiglu });
    this.mlp_gain = new Gain(start);
    this.embed_skip = new Gain(0);
    this.norm = new PlainNorm(args.rms_norm_eps);
  }

  /** @param embedded the normed embeddings that the stream began with */
  forward(x: Residual, mask: Mask, cache?: KeyValueCache, embedded?: Tensor): Residual {
    const h = x.plus(this.attn_gain.forward(this.attn.forward(x.branch(this.norm), mask, cache)));
    const fed = h.plus(this.mlp_gain.forward(this.mlp.forward(h.branch(this.norm))));
    return fed.plus(this.embed_skip.forward(embedded!));
  }
}

class Trunk extends Module {
  embed: Embedding;
  blocks: Block[];
  readonly norm: PlainNorm;
  /** Each layer attends to its own keys. */
  readonly owners: readonly number[];

  constructor(args: Args) {
    super();
    this.embed = new Embedding(args.vocab_size, args.hidden_size);
    this.blocks = Array.from({ length: args.num_hidden_layers }, () => new Block(args));
    this.norm = new PlainNorm(args.rms_norm_eps);
    this.owners = this.blocks.map((_, index) => index);
  }

  /** Token ids (B, T) → hidden states (B, T, D) */
  forward(inputs: Tensor, { cache, inputEmbeddings }: ForwardOptions<KeyValueCache> = {}): Tensor {
    const { blocks, owners, norm } = this;
    const x = norm.forward(inputEmbeddings ?? this.embed.forward(inputs));
    return throughSharingLayers(x, blocks, { cache, owners, inputs: blocks.map(() => x) }).branch(norm);
  }
}

export class Model extends Module implements LanguageModel {
  model: Trunk;
  /** A weight without a layer, (V, D): it is never packed. */
  lm_head: Tensor;
  lm_head_gain: LogitGain;

  constructor(args: Args) {
    super();
    this.model = new Trunk(args);
    this.lm_head = parameter(mx.zeros([args.vocab_size, args.hidden_size]));
    this.lm_head_gain = new LogitGain();
  }

  get layers(): Block[] {
    return this.model.blocks;
  }

  get vocabSize(): number {
    return this.model.embed.weight.dim(0);
  }

  forward(inputs: Tensor, options?: ForwardOptions<KeyValueCache>): Tensor {
    return this.lm_head_gain.forward(this.model.forward(inputs, options).matmul(this.lm_head.T));
  }

  /** Drops tables of the rotation that some exports save. */
  sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    return new Map([...weights].filter(([name]) => !name.includes("rotary") && !/(cos|sin)$/.test(name)));
  }

  makeCache(options?: CacheOptions): KeyValueCache[] {
    return layerCaches(this.layers, options);
  }
}

export const joins: Joins = [
  ["attn_query", "attn_key", "attn_value"],
  ["mlp_gate", "mlp_linear"],
];

/** llama.cpp turns heads as most models do: with the second half of each negative, that is the same. */
function turned({ num_attention_heads: heads, head_dim: dims }: Args): TensorChange {
  const flipped = (x: Tensor) => {
    const signs = mx
      .arange(dims)
      .less(dims / 2)
      .astype(x.dtype)
      .multiply(2)
      .subtract(1);
    return x
      .reshape(heads, dims, -1)
      .multiply(signs.expandDims(-1))
      .reshape(...x.shape);
  };
  // Numbers change, not their places: what is packed is unpacked.
  return { read: flipped, write: flipped, columns: 1 };
}

const column: TensorChange = { read: (x) => x.flatten(), write: (x) => x.reshape(-1, 1) };

export const gguf = decoder("talkie", {
  names: new TensorNames(
    {
      attn_q: "attn.attn_query",
      attn_k: "attn.attn_key",
      attn_v: "attn.attn_value",
      attn_output: "attn.attn_resid",
      ffn_gate: "mlp.mlp_gate",
      ffn_up: "mlp.mlp_linear",
      ffn_down: "mlp.mlp_resid",
    },
    {
      layers: "model.blocks",
      outer: { token_embd: "model.embed" },
      outerParameters: { "output.weight": "lm_head" },
      parameters: {
        "attn_q_norm.weight": "attn.head_gain.head_g",
        "attn_output.scale": "attn_gain.a_g",
        "ffn_down.scale": "mlp_gain.a_g",
        "layer_output_scale.weight": "embed_skip.a_g",
      },
    },
  ),
  changes: (config) => ({
    "attn.attn_query": turned(config as Args),
    "attn.attn_key": turned(config as Args),
    "attn.head_gain.head_g": column,
  }),
  numbers: { logit_scale: "lm_head_gain.w_g" },
});
