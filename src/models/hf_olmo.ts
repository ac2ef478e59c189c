/**
 * OLMo 1 as AI2's own program saves it: the model of `olmo.ts` under other names, with one projection ahead of attention and
 * one ahead of the gate.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  attention,
  behind,
  type CacheOptions,
  type DecoderLayer,
  type Divisible,
  divideNamedHeads,
  type ForwardOptions,
  type HeadLayout,
  innerPart,
  inputsOf,
  isSliceable,
  joinHeads,
  type KeyValueCache,
  keepOutputs,
  type Layer,
  Linear,
  type Mask,
  Module,
  type Residual,
  RoPE,
  type RotaryEmbedding,
  type Split,
  SumOfParts,
  splitQueriesKeysValues,
  swiglu,
} from "../nn";
import { size } from "./args";
import { type JoinedTensors, pairedRows } from "./gguf/changes";
import { decoder } from "./gguf/decoder";
import { TensorNames } from "./gguf/names";
import type { LanguageModel } from "./language-model";
import { NamedLM } from "./named-lm";
import { plainNorm } from "./olmo";

/** A setting of that program whose other values no published model has. */
const only = <T extends string | boolean>(value: T) => z.literal(value).nullish();

export const Args = z
  .object({
    d_model: size,
    n_layers: size,
    n_heads: size,
    mlp_hidden_size: size.nullish(),
    mlp_ratio: size.default(4),
    /** The vocabulary, and what it is filled up to. */
    vocab_size: size,
    embedding_size: size.nullish(),
    rope_theta: z.number().positive().default(10_000),
    rope_traditional: z.boolean().default(false),
    weight_tying: z.boolean().default(false),
    clip_qkv: z.number().positive().nullish(),
    activation_type: only("swiglu"),
    alibi: only(false),
    attention_layer_norm: only(false),
    block_type: only("sequential"),
    include_bias: only(false),
    layer_norm_type: only("default"),
    layer_norm_with_affine: only(false),
    multi_query_attention: only(false),
    rope: only(true),
    scale_logits: only(false),
  })
  .superRefine(({ d_model: dims, n_heads: heads }, context) => {
    if (dims % heads === 0) return;
    const message = `is ${heads}, but must divide "d_model" (${dims})`;
    context.addIssue({ code: "custom", path: ["n_heads"], message });
  });

type Args = z.infer<typeof Args>;

const norm = plainNorm();

/** Of gates and values together. */
const hiddenOf = ({ mlp_hidden_size: hidden, mlp_ratio: ratio, d_model: dims }: Args) => hidden ?? ratio * dims;

class Block extends Module implements DecoderLayer, HeadLayout, Divisible {
  ff_proj: Layer;
  ff_out: Layer;
  att_proj: Layer;
  attn_out: Layer;
  readonly heads: number;
  readonly kvHeads: number;
  readonly rope: RotaryEmbedding;
  readonly clip: number | null;
  readonly scale: number;

  constructor(args: Args) {
    super();
    const { d_model: D, n_heads: heads } = args;
    const headDim = D / heads;
    const hidden = hiddenOf(args);
    this.ff_proj = new Linear(D, hidden, { bias: false });
    this.ff_out = new Linear(hidden / 2, D, { bias: false });
    this.att_proj = new Linear(D, 3 * D, { bias: false });
    this.attn_out = new Linear(D, D, { bias: false });
    this.heads = heads;
    this.kvHeads = heads;
    this.rope = new RoPE(headDim, { base: args.rope_theta, traditional: args.rope_traditional });
    this.clip = args.clip_qkv ?? null;
    this.scale = headDim ** -0.5;
  }

  shard(split: Split): void {
    const share = divideNamedHeads(this, split, { inputs: "att_proj", output: "attn_out" });
    if (share) Object.assign(this, share);
    const { ff_out: last, ff_proj: first } = this;
    const part = innerPart(last, [], split);
    if (!part || !isSliceable(first) || !isSliceable(last)) return;
    keepOutputs(first, [part, behind(inputsOf(last), part)]);
    this.ff_out = new SumOfParts(last as never, part, split);
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const { clip, scale } = this;
    const projected = this.att_proj.forward(x.branch(norm));
    const joint = clip === null ? projected : mx.clip(projected, -clip, clip);
    const [q, k, v] = splitQueriesKeysValues(joint, this, cache?.offset);
    const h = x.plus(this.attn_out.forward(joinHeads(attention(q, k, v, { scale, mask, cache }))));
    const [up, gate] = this.ff_proj.forward(h.branch(norm)).split(2, -1) as [Tensor, Tensor];
    return h.plus(this.ff_out.forward(swiglu(gate, up)));
  }
}

/** All that has weights is one level further down than in other models. */
export class Model extends Module implements LanguageModel {
  model: NamedLM;

  constructor(args: Args) {
    super();
    const { d_model: dims, n_layers: layers, weight_tying: tied } = args;
    this.model = new NamedLM(
      { dims, vocab: args.embedding_size ?? args.vocab_size, layers, tied },
      { trunk: "transformer", embedding: "wte", layers: "blocks", norm: "ln_f", head: "ff_out" },
      () => new Block(args),
      plainNorm(dims),
    );
  }

  get layers(): DecoderLayer[] {
    return this.model.layers;
  }

  get vocabSize(): number {
    return this.model.vocabSize;
  }

  forward(inputs: Tensor, options?: ForwardOptions<KeyValueCache>): Tensor {
    return this.model.forward(inputs, options);
  }

  sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    return weights;
  }

  makeCache(options?: CacheOptions): KeyValueCache[] {
    return this.model.makeCache(options);
  }
}

/** Files have the projections one by one, as the other OLMo 1. */
function projections({ n_heads: heads, rope_traditional: turnsNeighbours }: Args): JoinedTensors {
  const { read, write } = turnsNeighbours ? { read: (x: Tensor) => x, write: (x: Tensor) => x } : pairedRows(heads);
  const above = (parts: Tensor[]) => mx.concatenate(parts, { axis: 0 });
  return {
    att_proj: {
      parts: ["attn_q", "attn_k", "attn_v"],
      movesRows: true,
      join: ([q, k, v]) => above([read(q!), read(k!), v!]),
      split(x) {
        const [q, k, v] = x.split(3, 0) as [Tensor, Tensor, Tensor];
        return [write(q), write(k), v];
      },
    },
    ff_proj: {
      parts: ["ffn_up", "ffn_gate"],
      movesRows: true,
      join: (parts) => above([...parts]),
      split: (x) => x.split(2, 0),
    },
  };
}

/** Files are those of the other OLMo 1, and read as such. */
export const gguf = decoder("olmo", {
  names: new TensorNames(
    { attn_output: "attn_out", ffn_down: "ff_out" },
    {
      layers: "model.transformer.blocks",
      outer: { token_embd: "model.transformer.wte", output: "model.transformer.ff_out" },
    },
  ),
  joined: (config) => projections(config as Args),
  epsilon: ["attention.layer_norm_epsilon", "layer_norm_eps"],
  floats: { "attention.clamp_kqv": "clip_qkv" },
  common(config) {
    const args = config as Args & { max_sequence_length?: number };
    return {
      hidden_size: args.d_model,
      num_hidden_layers: args.n_layers,
      num_attention_heads: args.n_heads,
      intermediate_size: hiddenOf(args) / 2,
      max_position_embeddings: args.max_sequence_length ?? 2048,
      layer_norm_eps: 1e-5,
    };
  },
});
