/** Qwen 3: Llama with RMSNorm on the heads of queries and keys, before they are rotated. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  attention,
  Decoder,
  Embedding,
  GatedMLP,
  initializeRope,
  joinHeads,
  type KeyValueCache,
  Linear,
  type Mask,
  Module,
  projectHeads,
  RMSNorm,
  type RotaryEmbedding,
} from "../nn";
import { checkHeads, ropeFields, ropeOptions, size } from "./args";
import { CausalLM } from "./language-model";
import { Block } from "./llama";

export const Args = z
  .object({
    hidden_size: size,
    num_hidden_layers: size,
    intermediate_size: size,
    num_attention_heads: size,
    num_key_value_heads: size,
    head_dim: size,
    vocab_size: size,
    rms_norm_eps: z.number().positive(),
    max_position_embeddings: size,
    ...ropeFields,
    tie_word_embeddings: z.boolean(),
  })
  .superRefine(checkHeads)
  .superRefine(({ rope_theta, rope_parameters }, context) => {
    if (rope_theta || rope_parameters?.rope_theta) return;
    context.addIssue({ code: "custom", path: ["rope_theta"], message: "is missing" });
  });

type Args = z.infer<typeof Args>;

class Attention extends Module {
  q_proj: Linear;
  k_proj: Linear;
  v_proj: Linear;
  o_proj: Linear;
  q_norm: RMSNorm;
  k_norm: RMSNorm;
  rope: RotaryEmbedding;
  readonly heads: number;
  readonly kvHeads: number;
  readonly scale: number;

  constructor(args: Args) {
    super();
    const { hidden_size: D, num_attention_heads: heads, num_key_value_heads: kvHeads, head_dim: headDim } = args;
    this.q_proj = new Linear(D, heads * headDim, { bias: false });
    this.k_proj = new Linear(D, kvHeads * headDim, { bias: false });
    this.v_proj = new Linear(D, kvHeads * headDim, { bias: false });
    this.o_proj = new Linear(heads * headDim, D, { bias: false });
    this.q_norm = new RMSNorm(headDim, args.rms_norm_eps);
    this.k_norm = new RMSNorm(headDim, args.rms_norm_eps);
    this.rope = initializeRope({
      dims: headDim,
      maxPositions: args.max_position_embeddings,
      ...ropeOptions(args, { base: 10_000 }),
    });
    this.heads = heads;
    this.kvHeads = kvHeads;
    this.scale = headDim ** -0.5;
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const [q, k, v] = projectHeads(x, [this.q_proj, this.k_proj, this.v_proj], this, cache?.offset);
    const out = attention(q, k, v, { scale: this.scale, mask, cache });
    return this.o_proj.forward(joinHeads(out));
  }
}

export class Model extends CausalLM {
  constructor(args: Args) {
    const { hidden_size: D, vocab_size: V } = args;
    const block = () => new Block(new Attention(args), new GatedMLP(D, args.intermediate_size), args);
    super(
      new Decoder(
        new Embedding(V, D),
        Array.from({ length: args.num_hidden_layers }, block),
        new RMSNorm(D, args.rms_norm_eps),
      ),
      args.tie_word_embeddings ? undefined : new Linear(D, V, { bias: false }),
    );
  }
}
