/** BitNet b1.58: Llama with ternary projections, a norm ahead of each block's last one, and ReLU² in the MLP. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  attention,
  BitLinear,
  Decoder,
  Embedding,
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
import { checkHeads, headsOf, ropeFields, ropeOptions, size } from "./args";
import { CausalLM } from "./language-model";
import { Block } from "./llama";

export const Args = z
  .object({
    hidden_size: size,
    num_hidden_layers: size,
    intermediate_size: size,
    num_attention_heads: size,
    num_key_value_heads: size,
    head_dim: size.nullish(),
    vocab_size: size,
    rms_norm_eps: z.number().positive(),
    max_position_embeddings: size.nullish(),
    attention_bias: z.boolean().default(false),
    mlp_bias: z.boolean().default(false),
    rope_traditional: z.boolean().default(false),
    ...ropeFields,
    tie_word_embeddings: z.boolean().default(true),
  })
  .superRefine(checkHeads);

type Args = z.infer<typeof Args>;

class Attention extends Module {
  q_proj: BitLinear;
  k_proj: BitLinear;
  v_proj: BitLinear;
  o_proj: BitLinear;
  attn_sub_norm: RMSNorm;
  rope: RotaryEmbedding;
  readonly heads: number;
  readonly kvHeads: number;
  readonly scale: number;

  constructor(args: Args) {
    super();
    const { hidden_size: D, attention_bias: bias } = args;
    const { heads, kvHeads, headDim } = headsOf(args);
    this.q_proj = new BitLinear(D, heads * headDim, { bias });
    this.k_proj = new BitLinear(D, kvHeads * headDim, { bias });
    this.v_proj = new BitLinear(D, kvHeads * headDim, { bias });
    this.o_proj = new BitLinear(heads * headDim, D, { bias });
    this.attn_sub_norm = new RMSNorm(D, args.rms_norm_eps);
    this.rope = initializeRope({
      dims: headDim,
      traditional: args.rope_traditional,
      maxPositions: args.max_position_embeddings ?? undefined,
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
    return this.o_proj.forward(this.attn_sub_norm.forward(joinHeads(out)));
  }
}

class MLP extends Module {
  gate_proj: BitLinear;
  down_proj: BitLinear;
  up_proj: BitLinear;
  ffn_sub_norm: RMSNorm;

  constructor({ hidden_size: D, intermediate_size: H, mlp_bias: bias, rms_norm_eps }: Args) {
    super();
    this.gate_proj = new BitLinear(D, H, { bias });
    this.down_proj = new BitLinear(H, D, { bias });
    this.up_proj = new BitLinear(D, H, { bias });
    this.ffn_sub_norm = new RMSNorm(H, rms_norm_eps);
  }

  /** x (…, D) → (…, D) */
  forward(x: Tensor): Tensor {
    const gate = this.gate_proj.forward(x).maximum(0).square();
    return this.down_proj.forward(this.ffn_sub_norm.forward(gate.multiply(this.up_proj.forward(x))));
  }
}

export class Model extends CausalLM {
  constructor(args: Args) {
    const { hidden_size: D, vocab_size: V } = args;
    const block = () => new Block(new Attention(args), new MLP(args), args);
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
