/** Lille: Llama with queries, keys and values in one projection, and the norms within attention and the feed-forward block. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  type DecoderLayer,
  GatedMLP,
  type KeyValueCache,
  type Mask,
  Module,
  NamedAttention,
  type NamedAttentionOptions,
  type Residual,
  RMSNorm,
} from "../nn";
import { size } from "./args";
import { type AwqFacts, downGroup } from "./awq-facts";
import { NamedLM } from "./named-lm";

export const Args = z
  .object({
    layer_norm_eps: z.number().positive(),
    n_embd: size,
    n_head: size,
    n_kv_heads: size,
    n_layer: size,
    rope_theta: z.number().positive(),
    vocab_size: size,
    tie_word_embeddings: z.literal(true).default(true),
  })
  .superRefine(({ n_embd: dims, n_head: heads, n_kv_heads: kvHeads }, context) => {
    const problem = (field: string, message: string) => context.addIssue({ code: "custom", path: [field], message });
    if (dims % heads !== 0) problem("n_head", `is ${heads}, but must divide "n_embd" (${dims})`);
    if (heads % kvHeads !== 0) problem("n_kv_heads", `is ${kvHeads}, but must divide "n_head" (${heads})`);
  });

type Args = z.infer<typeof Args>;

class Attention extends NamedAttention {
  norm: RMSNorm;

  constructor(options: NamedAttentionOptions, eps: number) {
    super(options);
    this.norm = new RMSNorm(options.dims, eps);
  }
}

class FeedForward extends GatedMLP {
  norm: RMSNorm;

  constructor(dims: number, eps: number) {
    super(dims, 256 * Math.round(Math.trunc((8 * dims) / 3) / 256), { downLast: true });
    this.norm = new RMSNorm(dims, eps);
  }
}

class Block extends Module implements DecoderLayer {
  attention: Attention;
  feed_forward: FeedForward;

  constructor(args: Args) {
    super();
    const { n_embd: dims, n_head: heads, n_kv_heads: kvHeads, layer_norm_eps: eps } = args;
    const headDim = dims / heads;
    const rope = { dims: headDim, base: args.rope_theta, traditional: true };
    const sizes = { dims, heads, kvHeads, headDim, rope, bias: false };
    this.attention = new Attention({ ...sizes, inputs: "qkv_proj", output: "out_proj" }, eps);
    this.feed_forward = new FeedForward(dims, eps);
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const h = x.plus(this.attention.forward(x.branch(this.attention.norm), mask, cache));
    return h.plus(this.feed_forward.forward(h.branch(this.feed_forward.norm)));
  }
}

export class Model extends NamedLM {
  constructor(args: Args) {
    const { n_embd: dims, vocab_size: vocab, n_layer: layers } = args;
    super(
      { dims, vocab, layers, tied: true },
      { trunk: "transformer", embedding: "tok_embeddings", layers: "layers", norm: "norm", head: ".lm_head" },
      () => new Block(args),
      new RMSNorm(dims, args.layer_norm_eps),
    );
  }

  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    return new Map([...super.sanitize(weights)].filter(([name]) => !name.includes("rotary_emb")));
  }
}

export const awq: AwqFacts = {
  noClip: ["qkv_proj"],
  groups: [
    { before: "attention.norm", layers: ["attention.qkv_proj"], part: "attention" },
    downGroup("feed_forward"),
    {
      before: "feed_forward.norm",
      layers: ["feed_forward.gate_proj", "feed_forward.up_proj"],
      part: "feed_forward",
    },
  ],
};
