/**
 * Llama 4 without experts (MobileLLM): Llama that rotates neighbours, norms what it rotated, and has layers without positions
 * (NoPE), whose queries grow with theirs.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  attention,
  type DecoderLayer,
  type ForwardOptions,
  GatedMLP,
  joinHeads,
  type KeyValueCache,
  type Layer,
  Linear,
  type Mask,
  type MaskRule,
  Module,
  projectHeads,
  type Residual,
  RMSNorm,
} from "../nn";
import { checkHeads, ropeFields, ropeOf, size } from "./args";
import { blockAwq } from "./awq-facts";
import { CausalLM } from "./language-model";
import * as llama from "./llama";

const isRotated = z.union([z.literal(0), z.literal(1), z.boolean()]);

/** What attention takes from a configuration of Llama 4. */
export const attentionFields = {
  hidden_size: size,
  num_hidden_layers: size,
  num_attention_heads: size,
  num_key_value_heads: size,
  head_dim: size,
  rms_norm_eps: z.number().positive(),
  max_position_embeddings: size.nullish(),
  ...ropeFields,
  attention_bias: z.boolean().default(false),
  use_qk_norm: z.boolean(),
  /** 1 where a layer has positions, 0 where it has none. */
  no_rope_layers: z.array(isRotated).nullish(),
  attn_temperature_tuning: z.union([z.boolean(), z.number()]).nullish(),
  floor_scale: z.number().positive().default(8192),
  attn_scale: z.number().default(0.1),
};

type AttentionArgs = z.infer<z.ZodObject<typeof attentionFields>>;

/** For `superRefine`: one entry for each layer. */
export function checkRotated(args: AttentionArgs, context: z.RefinementCtx): void {
  const { no_rope_layers: layers, num_hidden_layers: count } = args;
  if (!layers?.length || layers.length === count) return;
  const message = `has ${layers.length} entries, but "num_hidden_layers" is ${count}`;
  context.addIssue({ code: "custom", path: ["no_rope_layers"], message });
}

export class Attention extends llama.Attention {
  /** Of the norm of rotated queries and keys, which has no gain; null where there is none. */
  readonly normEps: number | null;
  /** How the queries of a layer without positions grow: by `scale` for each e-fold of `floor` tokens. */
  readonly growth: { floor: number; scale: number } | null;

  constructor(args: AttentionArgs, rotates: boolean) {
    const rotated = { ...args, rope_traditional: true };
    super(rotated, { rope: rotates ? ropeOf(rotated) : null });
    this.normEps = rotates && args.use_qk_norm ? args.rms_norm_eps : null;
    this.growth = !rotates && args.attn_temperature_tuning ? { floor: args.floor_scale, scale: args.attn_scale } : null;
  }

  protected override attend(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const offset = cache?.offset ?? 0;
    const [q, k, v] = this.headsOf(x, offset);
    return joinHeads(attention(this.#grown(q, offset), k, v, { scale: this.scale, mask, cache }));
  }

  /** Queries, keys and values of x (B, T, D), rotated and normed. */
  protected headsOf(x: Tensor, offset: number | Tensor): [q: Tensor, k: Tensor, v: Tensor] {
    const [q, k, v] = projectHeads(x, [this.q_proj, this.k_proj, this.v_proj], this, offset);
    return [this.norm(q), this.norm(k), v];
  }

  protected norm(heads: Tensor): Tensor {
    return this.normEps === null ? heads : mx.fast.rmsNorm(heads, null, this.normEps);
  }

  /** Queries (B, H, T, D) times 1 + scale · ln(1 + ⌊position / floor⌋), so that attention stays sharp in long contexts. */
  #grown(q: Tensor, offset: number | Tensor): Tensor {
    const [{ growth }, length] = [this, q.dim(2)];
    if (!growth || (typeof offset === "number" && offset + length < growth.floor)) return q;
    const first = typeof offset === "number" ? offset : offset.reshape(-1, 1, 1, 1);
    const positions = mx
      .arange(1, length + 1)
      .expandDims(-1)
      .add(first);
    const factors = positions.divide(growth.floor).floor().add(1).log().multiply(growth.scale).add(1);
    return q.multiply(factors).astype(q.dtype);
  }
}

/** x + attention(norm(x)), then h + feed_forward(norm(h)). */
export class Block extends Module implements DecoderLayer {
  input_layernorm: RMSNorm;
  post_attention_layernorm: RMSNorm;

  constructor(
    readonly self_attn: Attention,
    readonly feed_forward: Layer,
    { hidden_size, rms_norm_eps }: AttentionArgs,
    readonly mask?: MaskRule,
  ) {
    super();
    this.input_layernorm = new RMSNorm(hidden_size, rms_norm_eps);
    this.post_attention_layernorm = new RMSNorm(hidden_size, rms_norm_eps);
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const h = x.plus(this.self_attn.forward(x.branch(this.input_layernorm), mask, cache));
    return h.plus(this.feed_forward.forward(h.branch(this.post_attention_layernorm)));
  }
}

/** Norms ahead of the rotation: the same but for rounding, and as mlx-lm has it. */
class TextAttention extends Attention {
  protected override headsOf(x: Tensor, offset: number | Tensor): [q: Tensor, k: Tensor, v: Tensor] {
    const { rope, heads, kvHeads } = this;
    const [q, k, v] = projectHeads(x, [this.q_proj, this.k_proj, this.v_proj], { heads, kvHeads, rope: null });
    const turned = (one: Tensor) => rope?.forward(this.norm(one), offset) ?? one;
    return [turned(q), turned(k), v];
  }
}

export const Args = z
  .object({
    ...attentionFields,
    vocab_size: size,
    intermediate_size_mlp: size,
    tie_word_embeddings: z.boolean(),
    no_rope_layers: z.array(isRotated),
  })
  .superRefine(checkHeads)
  .superRefine(checkRotated);

type Args = z.infer<typeof Args>;

export class Model extends CausalLM {
  /** The head, by mlx-lm's name. */
  output?: Layer;

  constructor(args: Args) {
    super({ ...args, tie_word_embeddings: true }, (index) => {
      const rotates = Boolean(args.no_rope_layers[index] ?? true);
      return new Block(
        new TextAttention(args, rotates),
        new GatedMLP(args.hidden_size, args.intermediate_size_mlp),
        args,
      );
    });
    if (!args.tie_word_embeddings) this.output = new Linear(args.hidden_size, args.vocab_size, { bias: false });
  }

  override forward(inputs: Tensor, options?: ForwardOptions): Tensor {
    if (!this.output) return super.forward(inputs, options);
    return this.output.forward(this.model.forward(inputs, options));
  }

  /** The head of transformers' checkpoints is named as elsewhere. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const renamed = new Map<string, Tensor>();
    for (const [name, tensor] of weights)
      renamed.set(this.output ? name.replace(/^lm_head\./, "output.") : name, tensor);
    return super.sanitize(renamed);
  }
}

export const awq = blockAwq({ mlp: "feed_forward" });
