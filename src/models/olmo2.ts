/** OLMo 2: norms after the sublayers instead of before, and on all queries and all keys of a token. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  attention,
  type DecoderLayer,
  divideHeads,
  GatedMLP,
  type HeadShare,
  initializeRope,
  joinHeads,
  type KeyValueCache,
  type Layer,
  Linear,
  type Mask,
  type MaskRule,
  Module,
  project,
  type Residual,
  RMSNorm,
  RMSNormOfParts,
  type RopeOptions,
  type RotaryEmbedding,
  type Split,
  splitHeads,
} from "../nn";
import { checkHeads, denseFields, headsOf, ropeOf } from "./args";
import { type AwqFacts, downGroup } from "./awq-facts";
import { decoder } from "./gguf/decoder";
import { plainLayer, TensorNames } from "./gguf/names";
import { CausalLM } from "./language-model";
import type { SelfAttention } from "./llama";

export const Args = z.object({ ...denseFields, mlp_bias: z.boolean().default(false) }).superRefine(checkHeads);

type Args = z.infer<typeof Args>;

/** The norms are over all heads at once, ahead of the rotation. */
export class Attention extends Module {
  q_proj: Layer;
  k_proj: Layer;
  v_proj: Layer;
  o_proj: Layer;
  q_norm: RMSNorm;
  k_norm: RMSNorm;
  /** Null where a layer has no positions (NoPE). */
  readonly rope: RotaryEmbedding | null;
  readonly heads: number;
  readonly kvHeads: number;
  readonly scale: number;

  constructor(args: Omit<Args, "mlp_bias" | "intermediate_size">, rope: RopeOptions | null) {
    super();
    const { hidden_size: D, attention_bias: bias, rms_norm_eps: eps } = args;
    const { heads, kvHeads, headDim } = headsOf(args);
    this.q_proj = new Linear(D, heads * headDim, { bias });
    this.k_proj = new Linear(D, kvHeads * headDim, { bias });
    this.v_proj = new Linear(D, kvHeads * headDim, { bias });
    this.o_proj = new Linear(heads * headDim, D, { bias });
    this.q_norm = new RMSNorm(heads * headDim, eps);
    this.k_norm = new RMSNorm(kvHeads * headDim, eps);
    this.rope = rope && initializeRope(rope);
    this.heads = heads;
    this.kvHeads = kvHeads;
    this.scale = headDim ** -0.5;
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const [queries, keys, values] = project(x, [this.q_proj, this.k_proj, this.v_proj]) as [Tensor, Tensor, Tensor];
    const placed = (heads: Tensor) => this.rope?.forward(heads, cache?.offset) ?? heads;
    const q = placed(splitHeads(this.q_norm.forward(queries), this.heads));
    const k = placed(splitHeads(this.k_norm.forward(keys), this.kvHeads));
    const out = attention(q, k, splitHeads(values, this.kvHeads), { scale: this.scale, mask, cache });
    return this.o_proj.forward(joinHeads(out));
  }

  shard(split: Split): void {
    const divide = ({ queries, keys, counts, copies }: HeadShare) => {
      const width = this.q_norm.weight.dim(0) / this.heads;
      const [ofQueries, ofKeys] = [queries, keys].map(([start, end]) => [start * width, end * width] as const);
      this.q_norm = new RMSNormOfParts(this.q_norm, ofQueries!, split, { share: counts ? 1 : 0 });
      this.k_norm = new RMSNormOfParts(this.k_norm, ofKeys!, split, { share: 1 / copies });
    };
    divideHeads(this, split, { others: { names: ["q_norm", "k_norm"], divide } });
  }
}

interface NormedArgs {
  hidden_size: number;
  rms_norm_eps: number;
}

/** x + norm(attention(x)), then h + norm(mlp(h)). */
export class PostNormBlock extends Module implements DecoderLayer {
  post_attention_layernorm: RMSNorm;
  post_feedforward_layernorm: RMSNorm;

  constructor(
    readonly self_attn: SelfAttention,
    readonly mlp: Layer,
    { hidden_size: D, rms_norm_eps: eps }: NormedArgs,
    readonly mask?: MaskRule,
  ) {
    super();
    this.post_attention_layernorm = new RMSNorm(D, eps);
    this.post_feedforward_layernorm = new RMSNorm(D, eps);
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const h = x.plus(this.post_attention_layernorm.forward(this.self_attn.forward(x.value, mask, cache)));
    return h.plus(this.post_feedforward_layernorm.forward(this.mlp.forward(h.value)));
  }
}

export class Model extends CausalLM {
  constructor(args: Args) {
    const mlp = () => new GatedMLP(args.hidden_size, args.intermediate_size, { bias: args.mlp_bias });
    super(args, () => new PostNormBlock(new Attention(args, ropeOf(args)), mlp(), args));
  }
}

/** Norms behind the sublayers alone. */
const { attn_norm: _, ffn_norm: __, ...unnormed } = plainLayer;

export const normedLayer = {
  ...unnormed,
  post_attention_norm: "post_attention_layernorm",
  post_ffw_norm: "post_feedforward_layernorm",
};

export const gguf = decoder("olmo2", {
  names: new TensorNames(normedLayer),
  only: { attention_bias: false, mlp_bias: false, tie_word_embeddings: false },
});

/** What goes into a part has no norm ahead that could take factors. */
export const awq: AwqFacts = { noClip: ["q_proj", "k_proj"], groups: [downGroup("mlp")] };
