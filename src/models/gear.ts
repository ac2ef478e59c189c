/**
 * Gear: Gemma 3's blocks, some of which mix each token with a few before it, by gated convolutions of keys and values, in place
 * of attention.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  ArraysCache,
  attention,
  CausalConv1d,
  type DecoderLayer,
  GatedMLP,
  geglu,
  gelu,
  joinHeads,
  type KeyValueCache,
  type Layer,
  Linear,
  type Mask,
  Module,
  project,
  projectHeads,
  type Residual,
  recurrent,
  slidingWindow,
  swiglu,
  ZeroCenteredRMSNorm,
} from "../nn";
import { checkHeads, ropeFields, ropeOf, size } from "./args";
import { blockAwq } from "./awq-facts";
import { CausalLM } from "./language-model";
import * as llama from "./llama";

const positive = z.number().positive();

const LayerType = z.enum(["full_attention", "sliding_attention", "conv_mixer"]);

const activations = {
  gelu_pytorch_tanh: geglu,
  gelu_new: geglu,
  gelu_fast: geglu,
  gelu: (gate: Tensor, x: Tensor) => gelu(gate).multiply(x),
  silu: swiglu,
  swish: swiglu,
};

type Activation = keyof typeof activations;

export const Args = z
  .object({
    vocab_size: size,
    hidden_size: size,
    intermediate_size: size,
    num_hidden_layers: size,
    num_attention_heads: size,
    num_key_value_heads: size.nullish(),
    head_dim: size,
    rms_norm_eps: positive,
    layer_types: z.array(LayerType).nullish(),
    max_position_embeddings: size.nullish(),
    hidden_activation: z.enum(Object.keys(activations) as [Activation, ...Activation[]]).default("gelu_pytorch_tanh"),
    attention_bias: z.boolean().default(false),
    query_pre_attn_scalar: positive.nullish(),
    sliding_window: size.default(512),
    /** How many tokens a convolution sees, its own included. */
    conv_L_cache: size.default(3),
    ...ropeFields,
    rope_local_base_freq: positive.default(10_000),
    tie_word_embeddings: z.boolean().default(true),
    final_logit_softcapping: positive.nullish(),
    attn_logit_softcapping: positive.nullish(),
    use_bidirectional_attention: z.literal(false).nullish(),
  })
  .superRefine(checkHeads)
  .superRefine(({ layer_types: types, num_hidden_layers: count }, context) => {
    if (!types || types.length === count) return;
    const message = `has ${types.length} entries, but "num_hidden_layers" is ${count}`;
    context.addIssue({ code: "custom", path: ["layer_types"], message });
  });

type Args = z.infer<typeof Args>;
type LayerType = z.infer<typeof LayerType>;

class Attention extends llama.Attention {
  q_norm: ZeroCenteredRMSNorm;
  k_norm: ZeroCenteredRMSNorm;
  override readonly scale: number;
  readonly cap: number | undefined;

  constructor(args: Args, type: LayerType) {
    const { head_dim: dims, rms_norm_eps: eps, rope_local_base_freq: base } = args;
    const rope = type === "sliding_attention" ? { dims, base } : ropeOf(args, { base: 1_000_000 });
    super({ ...args, rope_traditional: false }, { rope });
    this.q_norm = new ZeroCenteredRMSNorm(dims, eps);
    this.k_norm = new ZeroCenteredRMSNorm(dims, eps);
    this.scale = (args.query_pre_attn_scalar ?? dims) ** -0.5;
    this.cap = args.attn_logit_softcapping ?? undefined;
  }

  protected override attend(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const [q, k, v] = projectHeads(x, [this.q_proj, this.k_proj, this.v_proj], this, cache?.offset);
    return joinHeads(attention(q, k, v, { scale: this.scale, mask, cache, cap: this.cap }));
  }
}

/** o(σ(q · conv(k)) · conv(v)), with queries and keys normed by head. */
class ConvMixer extends Module {
  key_conv: CausalConv1d;
  value_conv: CausalConv1d;
  q_proj: Layer;
  k_proj: Layer;
  v_proj: Layer;
  o_proj: Layer;
  q_norm: ZeroCenteredRMSNorm;
  k_norm: ZeroCenteredRMSNorm;
  readonly heads: number;
  readonly kvHeads: number;

  constructor(args: Args) {
    super();
    const { hidden_size: D, attention_bias: bias, head_dim: headDim, num_attention_heads: heads } = args;
    const kvHeads = args.num_key_value_heads ?? heads;
    this.key_conv = new CausalConv1d(kvHeads * headDim, args.conv_L_cache, { bias });
    this.value_conv = new CausalConv1d(kvHeads * headDim, args.conv_L_cache, { bias });
    this.q_proj = new Linear(D, heads * headDim, { bias });
    this.k_proj = new Linear(D, kvHeads * headDim, { bias });
    this.v_proj = new Linear(D, kvHeads * headDim, { bias });
    this.o_proj = new Linear(heads * headDim, D, { bias });
    this.q_norm = new ZeroCenteredRMSNorm(headDim, args.rms_norm_eps);
    this.k_norm = new ZeroCenteredRMSNorm(headDim, args.rms_norm_eps);
    this.heads = heads;
    this.kvHeads = kvHeads;
  }

  /** x (B, T, D), own (B, T): which tokens are a row's own → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: ArraysCache): Tensor {
    const { heads, kvHeads } = this;
    const length = x.dim(1);
    const [queries, keys, values] = project(x, [this.q_proj, this.k_proj, this.v_proj]) as [Tensor, Tensor, Tensor];
    const options = { own: mask as Tensor | null, lengths: cache?.lengthsWithin(length) };
    const convolved = (conv: CausalConv1d, entering: Tensor, index: number) => {
      const [y, recent] = conv.forward(entering, { ...options, before: cache?.get(index) });
      cache?.put(index, recent);
      // Each of its heads beside the queries' heads that share it.
      return y.unflatten(-1, [kvHeads, 1, -1]);
    };
    const k = convolved(this.key_conv, this.k_norm.forward(keys.unflatten(-1, [kvHeads, -1])).flatten(-2), 0);
    const v = convolved(this.value_conv, values, 1);
    cache?.advance(length);
    const q = this.q_norm.forward(queries.unflatten(-1, [heads, -1])).unflatten(-2, [kvHeads, -1]);
    return this.o_proj.forward(q.multiply(k).sigmoid().multiply(v).flatten(-3));
  }
}

type AnyCache = KeyValueCache | ArraysCache;

/** x + norm(mixer(norm(x))), then h + norm(mlp(norm(h))). */
class Block extends Module implements DecoderLayer<AnyCache> {
  self_attn?: Attention;
  local_mixer?: ConvMixer;
  mlp: GatedMLP;
  input_layernorm: ZeroCenteredRMSNorm;
  post_attention_layernorm: ZeroCenteredRMSNorm;
  pre_feedforward_layernorm: ZeroCenteredRMSNorm;
  post_feedforward_layernorm: ZeroCenteredRMSNorm;
  readonly mask: DecoderLayer<AnyCache>["mask"];
  readonly makeCache?: () => AnyCache;

  constructor(args: Args, type: LayerType) {
    super();
    const { hidden_size: D, rms_norm_eps: eps, intermediate_size: hidden, hidden_activation } = args;
    const isConv = type === "conv_mixer";
    if (isConv) this.local_mixer = new ConvMixer(args);
    else this.self_attn = new Attention(args, type);
    this.mlp = new GatedMLP(D, hidden, { activation: activations[hidden_activation], downLast: true });
    this.input_layernorm = new ZeroCenteredRMSNorm(D, eps);
    this.post_attention_layernorm = new ZeroCenteredRMSNorm(D, eps);
    this.pre_feedforward_layernorm = new ZeroCenteredRMSNorm(D, eps);
    this.post_feedforward_layernorm = new ZeroCenteredRMSNorm(D, eps);
    const slides = type === "sliding_attention" ? slidingWindow(args.sliding_window) : undefined;
    this.mask = (isConv ? recurrent : slides) as DecoderLayer<AnyCache>["mask"];
    if (isConv) this.makeCache = () => new ArraysCache(2);
  }

  forward(x: Residual, mask: Mask, cache?: AnyCache): Residual {
    const normed = x.branch(this.input_layernorm);
    const mixed =
      this.local_mixer?.forward(normed, mask, cache as ArraysCache | undefined) ??
      this.self_attn!.forward(normed, mask, cache as KeyValueCache | undefined);
    const h = x.plus(this.post_attention_layernorm.forward(mixed));
    return h.plus(this.post_feedforward_layernorm.forward(this.mlp.forward(h.branch(this.pre_feedforward_layernorm))));
  }
}

export class Model extends CausalLM<AnyCache> {
  constructor(args: Args) {
    const cap = args.final_logit_softcapping;
    super(args, (index) => new Block(args, args.layer_types?.[index] ?? "full_attention"), {
      norm: (dims, eps) => new ZeroCenteredRMSNorm(dims, eps),
      embeddingScale: Math.sqrt(args.hidden_size),
      adjustLogits: cap ? (logits) => logits.divide(cap).tanh().multiply(cap) : undefined,
    });
  }

  /** Convolutions as (C, K, 1): other programs save them as (C, 1, K). The embeddings' factor is no weight. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const own = [...super.sanitize(weights)].filter(([name]) => !name.endsWith("embed_scale"));
    const turned = (name: string, { shape }: Tensor) =>
      /\.(key|value)_conv\.weight$/.test(name) && shape.length === 3 && shape[1] === 1;
    return new Map(own.map(([name, weight]) => [name, turned(name, weight) ? weight.swapaxes(1, 2) : weight]));
  }
}

export const awq = blockAwq({ attention: ["self_attn", "local_mixer"], mlpNorm: "pre_feedforward_layernorm" });
