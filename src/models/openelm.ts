/** OpenELM: Llama whose layers have heads and widths of their own, with one projection each ahead of attention and gate. */
import { z } from "zod";
import type { Tensor } from "../mlx";
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
    this.ffn = new FeedForward(dims, divisible(args.ffn_multipliers[index]! * dims, args.ffn_dim_divisor));
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
