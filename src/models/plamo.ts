/** PLaMo: Llama with attention and MLP side by side on one norm, and heads of queries that share keys in turn, not in groups. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  attention,
  type DecoderLayer,
  GatedMLP,
  joinHeads,
  type KeyValueCache,
  type Mask,
  Module,
  projectHeads,
  type Residual,
  RMSNorm,
} from "../nn";
import { ropeFields, size } from "./args";
import { type AwqFacts, downGroup } from "./awq-facts";
import { spreadColumns, spreadRows } from "./gguf/changes";
import { decoder } from "./gguf/decoder";
import { u32 } from "./gguf/facts";
import { plainLayer, TensorNames } from "./gguf/names";
import * as llama from "./llama";
import { PlamoLM } from "./plamo-lm";

export const Args = z
  .object({
    hidden_size: size,
    num_hidden_layers: size,
    intermediate_size: size,
    num_attention_heads: size,
    /** How many heads of queries share one of keys. */
    n_shared_head: size.default(8),
    vocab_size: size,
    rms_norm_eps: z.number().positive(),
    max_position_embeddings: size.nullish(),
    ...ropeFields,
    rope_traditional: z.boolean().default(false),
  })
  .superRefine(({ num_attention_heads: heads, hidden_size: dims, n_shared_head: shared }, context) => {
    const problem = (field: string, message: string) => context.addIssue({ code: "custom", path: [field], message });
    if (dims % heads !== 0) problem("num_attention_heads", `is ${heads}, but must divide "hidden_size" (${dims})`);
    if (heads % shared !== 0)
      problem("n_shared_head", `is ${shared}, but must divide "num_attention_heads" (${heads})`);
  });

type Args = z.infer<typeof Args>;

class Attention extends llama.Attention {
  constructor({ n_shared_head, ...args }: Args) {
    super({ ...args, num_key_value_heads: args.num_attention_heads / n_shared_head, attention_bias: false });
  }

  /** Head i of the queries looks at head i mod kvHeads of the keys; `attention` has those that share one side by side. */
  protected override attend(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const { kvHeads } = this;
    const [q, k, v] = projectHeads(x, [this.q_proj, this.k_proj, this.v_proj], this, cache?.offset);
    const out = attention(swapped(q, kvHeads), k, v, { scale: this.scale, mask, cache });
    return joinHeads(swapped(out, this.heads / kvHeads));
  }

  /** Neighbours share no keys: it stays whole on every rank. */
  override shard(): void {}
}

/** x (B, a · inner, T, D), its heads as a rows of `inner` → the same by columns. */
const swapped = (x: Tensor, inner: number): Tensor => x.unflatten(1, [-1, inner]).swapaxes(1, 2).flatten(1, 2);

class Block extends Module implements DecoderLayer {
  self_attn: Attention;
  mlp: GatedMLP;
  norm: RMSNorm;

  constructor(args: Args) {
    super();
    this.self_attn = new Attention(args);
    this.mlp = new GatedMLP(args.hidden_size, args.intermediate_size, { downLast: true });
    this.norm = new RMSNorm(args.hidden_size, args.rms_norm_eps);
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const normed = x.branch(this.norm);
    return x.plus(this.self_attn.forward(normed, mask, cache)).plus(this.mlp.forward(normed));
  }
}

export class Model extends PlamoLM {
  constructor(args: Args) {
    const norm = new RMSNorm(args.hidden_size, args.rms_norm_eps);
    super({ ...args, tie_word_embeddings: false }, () => new Block(args), norm);
  }
}

/** The norm's results go to attention and MLP, which no part of a block computes on together. */
export const awq: AwqFacts = { noClip: ["q_proj", "k_proj"], groups: [downGroup("mlp")] };

/** Files have heads of queries that share keys side by side. */
function changes(config: object) {
  const { num_attention_heads: heads, n_shared_head: groups, hidden_size: dims } = config as Args;
  const order = { groups, perGroup: heads / groups };
  return { "self_attn.q_proj": spreadRows(order), "self_attn.o_proj": spreadColumns(order, dims / heads) };
}

const { ffn_norm: _, attn_q_norm: __, attn_k_norm: ___, ...ofLlama } = plainLayer;

export const gguf = decoder("plamo", {
  names: new TensorNames({ ...ofLlama, attn_norm: "norm" }, { layers: "model.layers.layers" }),
  changes,
  only: { rope_traditional: false, tie_word_embeddings: false },
  read: (_, { num_attention_heads, num_key_value_heads }) => ({
    n_shared_head: (num_attention_heads as number) / (num_key_value_heads as number),
  }),
  write: ({ num_attention_heads: heads, n_shared_head: shared }) => ({
    "attention.head_count_kv": u32(heads / (shared as number)),
  }),
});
