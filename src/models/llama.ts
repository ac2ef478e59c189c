/** Llama: pre-norm decoder, rotary grouped-query attention, SwiGLU. Also Mistral, Xverse and IQuest-Coder. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  attention,
  Decoder,
  type DecoderLayer,
  Embedding,
  GatedMLP,
  initializeRope,
  joinHeads,
  type KeyValueCache,
  Linear,
  type Mask,
  Module,
  PendingSum,
  projectHeads,
  type Residual,
  RMSNorm,
  type RotaryEmbedding,
} from "../nn";
import { checkHeads, headsOf, ropeFields, ropeOptions, size } from "./args";
import { CausalLM } from "./language-model";

export const Args = z
  .object({
    hidden_size: size,
    num_hidden_layers: size,
    intermediate_size: size,
    num_attention_heads: size,
    num_key_value_heads: size.nullish(),
    head_dim: size.nullish(),
    vocab_size: size,
    rms_norm_eps: z.number().positive(),
    max_position_embeddings: size.nullish(),
    ...ropeFields,
    rope_traditional: z.boolean().default(false),
    attention_bias: z.boolean().default(false),
    mlp_bias: z.boolean().default(false),
    tie_word_embeddings: z.boolean().default(true),
    layer_types: z.array(z.enum(["full_attention", "sliding_attention"])).nullish(),
    sliding_window: size.nullish(),
  })
  .superRefine(checkHeads)
  .superRefine(({ layer_types, num_hidden_layers, sliding_window }, context) => {
    const problem = (message: string) => context.addIssue({ code: "custom", path: ["layer_types"], message });
    if (!layer_types) return;
    if (layer_types.length !== num_hidden_layers) {
      problem(`has ${layer_types.length} entries, but "num_hidden_layers" is ${num_hidden_layers}`);
    }
    if (layer_types.includes("sliding_attention") && !sliding_window) {
      problem(`has "sliding_attention", but there is no "sliding_window"`);
    }
  });

type Args = z.infer<typeof Args>;

type AttentionArgs = Pick<
  Args,
  | "hidden_size"
  | "num_attention_heads"
  | "num_key_value_heads"
  | "head_dim"
  | "attention_bias"
  | "max_position_embeddings"
  | "rope_traditional"
  | keyof typeof ropeFields
>;

export class Attention extends Module {
  q_proj: Linear;
  k_proj: Linear;
  v_proj: Linear;
  o_proj: Linear;
  /** Null where a layer has no positions (NoPE). */
  rope: RotaryEmbedding | null;
  readonly heads: number;
  readonly kvHeads: number;
  readonly scale: number;

  constructor(args: AttentionArgs) {
    super();
    const { hidden_size: D, attention_bias: bias } = args;
    const { heads, kvHeads, headDim } = headsOf(args);
    this.q_proj = new Linear(D, heads * headDim, { bias });
    this.k_proj = new Linear(D, kvHeads * headDim, { bias });
    this.v_proj = new Linear(D, kvHeads * headDim, { bias });
    this.o_proj = new Linear(heads * headDim, D, { bias });
    this.rope = initializeRope({
      dims: headDim,
      traditional: args.rope_traditional,
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

interface Part extends Module {
  forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor;
}

/** x + attention(norm(x)), then h + mlp(norm(h)). */
export class Block extends Module implements DecoderLayer {
  readonly takesSums = true;
  input_layernorm: RMSNorm;
  post_attention_layernorm: RMSNorm;

  constructor(
    readonly self_attn: Part,
    readonly mlp: Module & { forward(x: Tensor): Tensor },
    { hidden_size, rms_norm_eps }: { hidden_size: number; rms_norm_eps: number },
    readonly window: number | null = null,
  ) {
    super();
    this.input_layernorm = new RMSNorm(hidden_size, rms_norm_eps);
    this.post_attention_layernorm = new RMSNorm(hidden_size, rms_norm_eps);
  }

  forward(residual: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const [x, normed] = this.input_layernorm.branch(residual);
    const attended = new PendingSum(x, this.self_attn.forward(normed, mask, cache));
    const [h, next] = this.post_attention_layernorm.branch(attended);
    return new PendingSum(h, this.mlp.forward(next));
  }
}

export class Model extends CausalLM {
  constructor(args: Args) {
    const { hidden_size: D, vocab_size: V } = args;
    const types = args.layer_types ?? new Array<"full_attention">(args.num_hidden_layers).fill("full_attention");
    const block = (type: (typeof types)[number]) =>
      new Block(
        new Attention(args),
        new GatedMLP(D, args.intermediate_size, { bias: args.mlp_bias }),
        args,
        type === "sliding_attention" ? args.sliding_window : null,
      );
    super(
      new Decoder(new Embedding(V, D), types.map(block), new RMSNorm(D, args.rms_norm_eps)),
      args.tie_word_embeddings ? undefined : new Linear(D, V, { bias: false }),
    );
  }
}
