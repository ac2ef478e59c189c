/** OpenELM: Llama whose layers have heads and widths of their own, with one projection each ahead of attention and gate. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  type DecoderLayer,
  type KeyValueCache,
  type Layer,
  Linear,
  type Mask,
  Module,
  NamedAttention,
  type Residual,
  RMSNorm,
  swiglu,
} from "../nn";
import { size } from "./args";
import type { AwqFacts } from "./awq-facts";
import { precise } from "./gguf/decoder";
import { f32, type GgufFacts, u32 } from "./gguf/facts";
import { TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { NamedLM } from "./named-lm";

export const Args = z
  .object({
    head_dim: size,
    num_transformer_layers: size,
    model_dim: size,
    vocab_size: size,
    ffn_dim_divisor: size,
    num_query_heads: z.array(size),
    num_kv_heads: z.array(size),
    ffn_multipliers: z.array(z.number().positive()),
    ffn_with_glu: z.literal(true).default(true),
    normalize_qk_projections: z.boolean().default(true),
    share_input_output_layers: z.boolean().default(true),
    rms_norm_eps: z.number().positive().default(1e-6),
    rope_freq_constant: z.number().positive().default(10_000),
  })
  .superRefine((args, context) => {
    const problem = (field: string, message: string) => context.addIssue({ code: "custom", path: [field], message });
    for (const field of ["num_query_heads", "num_kv_heads", "ffn_multipliers"] as const) {
      const { length } = args[field];
      if (length === args.num_transformer_layers) continue;
      problem(field, `has ${length} entries, but "num_transformer_layers" is ${args.num_transformer_layers}`);
    }
    const uneven = args.num_query_heads.findIndex((heads, i) => heads % (args.num_kv_heads[i] ?? 1) !== 0);
    if (uneven >= 0) problem("num_kv_heads", `must divide "num_query_heads" in layer ${uneven}`);
  });

type Args = z.infer<typeof Args>;

/** The nearest multiple of a divisor, and no less than nine tenths of the number. */
function divisible(number: number, divisor: number): number {
  const nearest = Math.max(divisor, Math.floor(Math.trunc(number + divisor / 2) / divisor) * divisor);
  return nearest < 0.9 * number ? nearest + divisor : nearest;
}

/** Of a layer's feed-forward block. */
const widthOf = ({ ffn_multipliers, model_dim, ffn_dim_divisor }: Args, index: number) =>
  divisible(ffn_multipliers[index]! * model_dim, ffn_dim_divisor);

class FeedForward extends Module {
  /** Gate and value in one. */
  proj_1: Layer;
  proj_2: Layer;

  constructor(dims: number, hiddenDims: number) {
    super();
    this.proj_1 = new Linear(dims, 2 * hiddenDims, { bias: false });
    this.proj_2 = new Linear(hiddenDims, dims, { bias: false });
  }

  forward(x: Tensor): Tensor {
    const [gate, value] = this.proj_1.forward(x).split(2, -1) as [Tensor, Tensor];
    return this.proj_2.forward(swiglu(gate, value));
  }
}

class Block extends Module implements DecoderLayer {
  attn: NamedAttention;
  ffn: FeedForward;
  ffn_norm: RMSNorm;
  attn_norm: RMSNorm;

  constructor(args: Args, index: number) {
    super();
    const { model_dim: dims, head_dim: headDim, rms_norm_eps: eps } = args;
    this.attn = new NamedAttention({
      ...{ dims, headDim, heads: args.num_query_heads[index]!, kvHeads: args.num_kv_heads[index]! },
      ...{ bias: false, inputs: "qkv_proj", output: "out_proj" },
      rope: { dims: headDim, base: args.rope_freq_constant },
      norms: args.normalize_qk_projections ? { queries: "q_norm", keys: "k_norm", eps } : undefined,
    });
    this.ffn = new FeedForward(dims, widthOf(args, index));
    this.ffn_norm = new RMSNorm(dims, eps);
    this.attn_norm = new RMSNorm(dims, eps);
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const h = x.plus(this.attn.forward(x.branch(this.attn_norm), mask, cache));
    return h.plus(this.ffn.forward(h.branch(this.ffn_norm)));
  }
}

export class Model extends NamedLM {
  constructor(args: Args) {
    const { model_dim: dims, vocab_size: vocab, num_transformer_layers: layers } = args;
    super(
      { dims, vocab, layers, tied: args.share_input_output_layers },
      { trunk: "transformer", embedding: "token_embeddings", layers: "layers", norm: "norm", head: ".lm_head" },
      (index) => new Block(args, index),
      new RMSNorm(dims, args.rms_norm_eps),
    );
  }
}

export const awq: AwqFacts = {
  noClip: ["qkv_proj"],
  groups: [
    { before: "attn_norm", layers: ["attn.qkv_proj"], part: "attn" },
    { before: "ffn_norm", layers: ["ffn.proj_1"], part: "ffn" },
  ],
};

const layer = {
  attn_norm: "attn_norm",
  attn_qkv: "attn.qkv_proj",
  attn_q_norm: "attn.q_norm",
  attn_k_norm: "attn.k_norm",
  attn_output: "attn.out_proj",
  ffn_norm: "ffn_norm",
  ffn_down: "ffn.proj_2",
};

/** Of the published models. */
const usualContext = 2048;

export const gguf: GgufFacts = {
  architecture: "openelm",
  names: new TensorNames(layer, {
    outer: { token_embd: "transformer.token_embeddings", output_norm: "transformer.norm" },
    layers: "transformer.layers",
  }),
  normOffset: 0,
  joined: () => ({
    "ffn.proj_1": {
      parts: ["ffn_gate", "ffn_up"],
      movesRows: true,
      join: (parts) => mx.concatenate([...parts], { axis: 0 }),
      split: (x) => x.split(2, 0),
    },
  }),
  read(file) {
    const dims = file.need("embedding_length");
    const layers = file.need("block_count");
    const each = (key: string) => {
      const list = file.list(key) ?? [];
      return list.length === 1 ? Array.from({ length: layers }, () => list[0]!) : list;
    };
    return {
      vocab_size: file.shape("token_embd.weight")?.[0] ?? file.wrong("there is no token_embd.weight"),
      model_dim: dims,
      head_dim: file.need("attention.key_length"),
      num_transformer_layers: layers,
      // By the name that most models have it, for who goes through a file's layers.
      num_hidden_layers: layers,
      num_query_heads: each("attention.head_count"),
      num_kv_heads: each("attention.head_count_kv"),
      ffn_multipliers: each("feed_forward_length").map((width) => width / dims),
      ffn_dim_divisor: 1,
      rms_norm_eps: precise(file.need("attention.layer_norm_rms_epsilon")),
      rope_freq_constant: precise(file.number("rope.freq_base") ?? 10_000),
      max_context_length: file.need("context_length"),
    };
  },
  write(config) {
    const args = config as Args & { max_context_length?: number };
    if (!args.share_input_output_layers) noPlace("a head that is not the embedding");
    if (!args.normalize_qk_projections) noPlace("queries and keys without norms");
    const fields = {
      context_length: u32(args.max_context_length ?? usualContext),
      embedding_length: u32(args.model_dim),
      block_count: u32(args.num_transformer_layers),
      feed_forward_length: u32(args.ffn_multipliers.map((_, index) => widthOf(args, index))),
      "attention.head_count": u32(args.num_query_heads),
      "attention.head_count_kv": u32(args.num_kv_heads),
      "attention.key_length": u32(args.head_dim),
      "attention.value_length": u32(args.head_dim),
      "attention.layer_norm_rms_epsilon": f32(args.rms_norm_eps),
      "rope.dimension_count": u32(args.head_dim),
      "rope.freq_base": f32(args.rope_freq_constant),
    };
    return { fields, tensors: {} };
  },
};
