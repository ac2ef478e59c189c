/**
 * OLMo Hybrid: OLMo 2 with three of four layers' attention replaced by a gated delta rule, in layers with norms ahead of their
 * parts. The rule may write past the new value: its strength goes up to two.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  ArraysCache,
  CausalConv1d,
  convolve,
  type DecoderLayer,
  decayOf,
  GatedMLP,
  gatedDeltaRule,
  type Joins,
  type KeyValueCache,
  type Layer,
  Linear,
  type Mask,
  Module,
  ofLength,
  parameter,
  preciseSwiglu,
  project,
  type Residual,
  RMSNorm,
  RopeScaling,
  recurrent,
  turnConvolutions,
  usualJoins,
} from "../nn";
import { checkHeads, headsOf, size } from "./args";
import { type AwqFacts, downGroup } from "./awq-facts";
import { CausalLM } from "./language-model";
import { Attention, PostNormBlock } from "./olmo2";

export const Args = z
  .object({
    hidden_size: size,
    intermediate_size: size,
    num_hidden_layers: size,
    num_attention_heads: size,
    num_key_value_heads: size.nullish(),
    head_dim: size.nullish(),
    rms_norm_eps: z.number().positive(),
    vocab_size: size,
    max_position_embeddings: size,
    linear_num_key_heads: size,
    linear_num_value_heads: size,
    linear_key_head_dim: size,
    linear_value_head_dim: size,
    linear_conv_kernel_dim: size.default(4),
    linear_allow_neg_eigval: z.boolean().default(true),
    layer_norm_epsilon: z.number().positive().default(1e-5),
    tie_word_embeddings: z.boolean().default(false),
    attention_bias: z.boolean().default(false),
    layer_types: z.array(z.enum(["linear_attention", "full_attention"])).nullish(),
    /** Null: attention has no positions. */
    rope_theta: z.number().positive().nullable().default(10_000),
    rope_parameters: RopeScaling.extend({ rope_theta: z.number().positive().nullish() }).nullish(),
  })
  .superRefine(checkHeads)
  .superRefine((args, context) => {
    const problem = (field: string, message: string) => context.addIssue({ code: "custom", path: [field], message });
    const { linear_num_value_heads: valueHeads, linear_num_key_heads: keyHeads, layer_types: types } = args;
    if (valueHeads % keyHeads !== 0) {
      const of = `"linear_num_key_heads" (${keyHeads})`;
      problem("linear_num_value_heads", `is ${valueHeads}, but must be a multiple of ${of}`);
    }
    if (!types || types.length === args.num_hidden_layers) return;
    problem("layer_types", `has ${types.length} entries, but "num_hidden_layers" is ${args.num_hidden_layers}`);
  });

type Args = z.infer<typeof Args>;

const attends = ({ layer_types: types }: Args, index: number): boolean =>
  types ? types[index] === "full_attention" : index % 4 === 3;

/** With a projection and a convolution for each of queries, keys and values. */
class DeltaNet extends Module {
  q_proj: Layer;
  k_proj: Layer;
  v_proj: Layer;
  a_proj: Layer;
  b_proj: Layer;
  g_proj: Layer;
  o_proj: Layer;
  q_conv1d: CausalConv1d;
  k_conv1d: CausalConv1d;
  v_conv1d: CausalConv1d;
  A_log: Tensor;
  dt_bias: Tensor;
  o_norm: RMSNorm;
  readonly keyHeads: number;
  readonly valueHeads: number;
  /** The largest strength. */
  readonly reach: number;

  constructor(args: Args) {
    super();
    const { hidden_size: D, linear_num_key_heads: keyHeads, linear_num_value_heads: valueHeads } = args;
    const [keys, values] = [keyHeads * args.linear_key_head_dim, valueHeads * args.linear_value_head_dim];
    const linear = (inputs: number, outputs: number) => new Linear(inputs, outputs, { bias: false });
    const conv = (channels: number) => new CausalConv1d(channels, args.linear_conv_kernel_dim, { bias: false });
    this.q_proj = linear(D, keys);
    this.k_proj = linear(D, keys);
    this.v_proj = linear(D, values);
    this.a_proj = linear(D, valueHeads);
    this.b_proj = linear(D, valueHeads);
    this.g_proj = linear(D, values);
    this.o_proj = linear(values, D);
    this.q_conv1d = conv(keys);
    this.k_conv1d = conv(keys);
    this.v_conv1d = conv(values);
    this.A_log = parameter(mx.zeros([valueHeads]));
    this.dt_bias = parameter(mx.zeros([valueHeads]));
    this.o_norm = new RMSNorm(args.linear_value_head_dim, args.layer_norm_epsilon);
    this.keyHeads = keyHeads;
    this.valueHeads = valueHeads;
    this.reach = args.linear_allow_neg_eigval ? 2 : 1;
  }

  /** x (B, T, D), own (B, T): which tokens are a row's own → (B, T, D) */
  forward(x: Tensor, own: Tensor | null, cache?: ArraysCache): Tensor {
    const { keyHeads, valueHeads } = this;
    const [queries, keys, values] = project(x, [this.q_proj, this.k_proj, this.v_proj]) as Triple;
    const [a, b, gates] = project(x, [this.a_proj, this.b_proj, this.g_proj]) as Triple;
    const convolved = (conv: CausalConv1d, entering: Tensor, index: number, heads: number) =>
      convolve(conv, entering, own, cache, index).unflatten(-1, [heads, -1]);
    const q = convolved(this.q_conv1d, queries, 0, keyHeads);
    const inputs = {
      q: ofLength(q, q.dim(-1) ** -0.5),
      k: ofLength(convolved(this.k_conv1d, keys, 1, keyHeads), 1),
      v: convolved(this.v_conv1d, values, 2, valueHeads),
      strength: b.sigmoid().multiply(this.reach),
      decay: decayOf(this.A_log, a, this.dt_bias),
    };
    const [y, state] = gatedDeltaRule(inputs, cache?.get(3) ?? null, own);
    cache?.put(3, state);
    cache?.advance(x.dim(1));
    const gated = preciseSwiglu(gates.unflatten(-1, [valueHeads, -1]), this.o_norm.forward(y)).astype(x.dtype);
    return this.o_proj.forward(gated.flatten(-2));
  }
}

type Triple = [Tensor, Tensor, Tensor];

class LinearBlock extends Module implements DecoderLayer<ArraysCache> {
  linear_attn: DeltaNet;
  mlp: GatedMLP;
  input_layernorm: RMSNorm;
  post_attention_layernorm: RMSNorm;
  readonly mask = recurrent;

  constructor(args: Args) {
    super();
    this.linear_attn = new DeltaNet(args);
    this.mlp = mlpOf(args);
    this.input_layernorm = new RMSNorm(args.hidden_size, args.rms_norm_eps);
    this.post_attention_layernorm = new RMSNorm(args.hidden_size, args.rms_norm_eps);
  }

  forward(x: Residual, own: Mask, cache?: ArraysCache): Residual {
    const h = x.plus(this.linear_attn.forward(x.branch(this.input_layernorm), own as Tensor | null, cache));
    return h.plus(this.mlp.forward(h.branch(this.post_attention_layernorm)));
  }

  makeCache(): ArraysCache {
    return new ArraysCache(4);
  }
}

const mlpOf = (args: Args) => new GatedMLP(args.hidden_size, args.intermediate_size, { downLast: true });

function attentionOf(args: Args): Attention {
  const { rope_parameters: parameters, max_position_embeddings: maxPositions } = args;
  const base = parameters ? (parameters.rope_theta ?? null) : args.rope_theta;
  const rope = base === null ? null : { dims: headsOf(args).headDim, base, scaling: parameters, maxPositions };
  return new Attention({ ...args, rope_traditional: false, rope_parameters: null }, rope);
}

type AnyCache = KeyValueCache | ArraysCache;

export class Model extends CausalLM<AnyCache> {
  constructor(args: Args) {
    super(args, (index): DecoderLayer<AnyCache> => {
      return attends(args, index) ? new PostNormBlock(attentionOf(args), mlpOf(args), args) : new LinearBlock(args);
    });
  }

  /** Convolutions as (C, K, 1): other programs save them as (C, 1, K). */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = super.sanitize(weights);
    turnConvolutions(sanitized);
    return sanitized;
  }
}

export const joins: Joins = [...usualJoins, ["a_proj", "b_proj", "g_proj"]];

/** Layers of attention have no norm ahead of a part that could take factors. */
export const awq: AwqFacts = {
  noClip: ["q_proj", "k_proj"],
  groups: [
    {
      before: "input_layernorm",
      layers: ["q_proj", "k_proj", "v_proj", "a_proj", "b_proj", "g_proj"].map((name) => `linear_attn.${name}`),
      part: "linear_attn",
    },
    downGroup("mlp"),
  ],
};
