/**
 * LongCat-Flash: two latent attentions and two feed-forward blocks a layer, with experts on a shortcut from the first to the
 * layer's end; some experts give back what they take. Meituan 2025, arXiv:2509.01322.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  attentionMask,
  CacheList,
  type DecoderLayer,
  type KeyValueCache,
  KVCache,
  LatentAttention,
  type LatentHeads,
  type Layer,
  Linear,
  latentJoins,
  type Mask,
  type MaskRule,
  Module,
  mixExperts,
  parameter,
  type Residual,
  RMSNorm,
  type Routing,
  routeWithinGroups,
  SwitchGLU,
  splitKeysValues,
  stackExperts,
  usualJoins,
} from "../nn";
import { count, ropeFields, size } from "./args";
import { type AwqFacts, downGroup } from "./awq-facts";
import { attentionSizes, latentScaling, mlpOf } from "./deepseek_v3";
import { CausalLM } from "./language-model";

export const fields = {
  hidden_size: size,
  ffn_hidden_size: size,
  expert_ffn_hidden_size: size,
  moe_topk: size,
  n_routed_experts: size,
  zero_expert_num: count,
  zero_expert_type: z.literal("identity").default("identity"),
  num_layers: size,
  vocab_size: size,
  max_position_embeddings: size,
  num_attention_heads: size,
  kv_lora_rank: size,
  q_lora_rank: size.nullish(),
  qk_rope_head_dim: size,
  qk_nope_head_dim: size,
  v_head_dim: size,
  routed_scaling_factor: z.number(),
  rms_norm_eps: z.number().positive(),
  ...ropeFields,
  /** Whether queries, and latent vectors, have a factor by how much narrower they are than hidden states. */
  mla_scale_q_lora: z.boolean(),
  mla_scale_kv_lora: z.boolean(),
  attention_bias: z.boolean().default(false),
  norm_topk_prob: z.boolean().default(false),
  router_bias: z.boolean().default(false),
};

type Fields = z.infer<z.ZodObject<typeof fields>>;

/** For `superRefine`. */
export function checkFields(args: Fields, context: z.RefinementCtx): void {
  const { moe_topk: used, n_routed_experts: experts, zero_expert_num: others } = args;
  const problem = (field: string, message: string) => context.addIssue({ code: "custom", path: [field], message });
  if (used > experts + others) problem("moe_topk", `is ${used}, but there are ${experts} + ${others} experts`);
  if (args.mla_scale_q_lora && !args.q_lora_rank) problem("mla_scale_q_lora", `needs "q_lora_rank"`);
}

export const Args = z.object({ ...fields, attention_method: z.literal("MLA").nullish() }).superRefine(checkFields);

export type Args = z.infer<typeof Args>;

class Attention extends LatentAttention {
  /** On latent vectors of keys and values. */
  readonly factor: number;

  constructor(args: Args) {
    const { hidden_size: D, q_lora_rank: queryRank = null, kv_lora_rank: rank } = args;
    const { rope, scale } = latentScaling(args as Args & { q_lora_rank: number | null });
    // A factor on queries is one on scores.
    const stretch = args.mla_scale_q_lora ? Math.sqrt(D / queryRank!) : 1;
    super(attentionSizes({ ...args, q_lora_rank: queryRank }), rope, scale * stretch);
    this.factor = args.mla_scale_kv_lora ? Math.sqrt(D / rank) : 1;
  }

  protected override project(x: Tensor, offset?: number | Tensor): LatentHeads {
    const heads = super.project(x, offset);
    return { ...heads, latent: heads.latent.multiply(this.factor) };
  }
}

class Router extends Module {
  classifier: Layer;
  /** Only takes part in the choice, (experts). */
  e_score_correction_bias: Tensor;

  constructor(readonly args: Args) {
    super();
    const experts = args.n_routed_experts + args.zero_expert_num;
    this.classifier = new Linear(args.hidden_size, experts, { bias: args.router_bias });
    this.e_score_correction_bias = parameter(mx.zeros([experts]));
  }

  forward(x: Tensor): Routing {
    const scores = mx.softmax(this.classifier.forward(x).astype("float32"), { axis: -1 });
    const { experts, weights } = routeWithinGroups(scores, this.e_score_correction_bias, {
      expertsPerToken: this.args.moe_topk,
      groups: 1,
      groupsPerToken: 1,
      normalize: this.args.norm_topk_prob,
      scale: this.args.routed_scaling_factor,
    });
    return { experts, weights: weights.astype(x.dtype) };
  }
}

class MoE extends Module {
  switch_mlp: SwitchGLU;
  router: Router;
  readonly experts: number;

  constructor(args: Args) {
    super();
    this.switch_mlp = new SwitchGLU(args.hidden_size, args.expert_ffn_hidden_size, args.n_routed_experts);
    this.router = new Router(args);
    this.experts = args.n_routed_experts;
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    const { experts, weights } = this.router.forward(x);
    // What is no expert gives back what it takes.
    const passes = experts.greaterEqual(this.experts);
    const routing = { experts: mx.where(passes, 0, experts), weights: mx.where(passes, 0, weights) };
    const passing = mx.where(passes, weights, 0).sum({ axis: -1, keepdims: true });
    return mixExperts(x, this.switch_mlp, routing).add(x.multiply(passing));
  }
}

export type LayerCache = CacheList<KeyValueCache>;

/** Scores are masked before they reach the attention kernel, so masks are arrays. */
export const layerMask: MaskRule<LayerCache> = {
  key: "two of full attention, array",
  make: (h, cache) => attentionMask(h, cache?.parts[0], { asArray: true }),
};

export class Block extends Module implements DecoderLayer<LayerCache> {
  mlp: MoE;
  self_attn: [Attention, Attention];
  mlps: [Layer, Layer];
  input_layernorm: [RMSNorm, RMSNorm];
  post_attention_layernorm: [RMSNorm, RMSNorm];
  readonly mask = layerMask;

  constructor(args: Args) {
    super();
    const { hidden_size: D, rms_norm_eps: eps, ffn_hidden_size: hidden } = args;
    const norm = () => new RMSNorm(D, eps);
    this.mlp = new MoE(args);
    this.self_attn = [new Attention(args), new Attention(args)];
    this.mlps = [mlpOf(D, hidden), mlpOf(D, hidden)];
    this.input_layernorm = [norm(), norm()];
    this.post_attention_layernorm = [norm(), norm()];
  }

  forward(x: Residual, mask: Mask, cache?: LayerCache): Residual {
    let shortcut: Tensor | null = null;
    let h = x;
    for (const i of [0, 1] as const) {
      h = h.plus(this.self_attn[i].forward(h.branch(this.input_layernorm[i]), mask, cache?.parts[i]));
      const branch = h.branch(this.post_attention_layernorm[i]);
      shortcut ??= this.mlp.forward(branch);
      h = h.plus(this.mlps[i].forward(branch));
    }
    return h.plus(shortcut!);
  }

  makeCache(): LayerCache {
    return new CacheList<KeyValueCache>([new KVCache(), new KVCache()]);
  }
}

/** Stacks the experts, takes keys and values apart, and drops the layers that predict further tokens. Changes the map. */
export function sanitizeLayers(weights: Map<string, Tensor>, args: Args): Map<string, Tensor> {
  for (const name of weights.keys()) if (name.startsWith("model.mtp")) weights.delete(name);
  const sizes = attentionSizes({ ...args, q_lora_rank: args.q_lora_rank ?? null });
  for (let layer = 0; layer < args.num_layers; layer++) {
    const path = `model.layers.${layer}`;
    stackExperts(weights, {
      count: args.n_routed_experts,
      from: `${path}.mlp.experts`,
      to: `${path}.mlp.switch_mlp`,
    });
    for (const i of [0, 1]) splitKeysValues(weights, `${path}.self_attn.${i}`, sizes);
  }
  return weights;
}

/** What the trunk is called by other architectures. */
export const trunkOf = (args: Args) => ({ ...args, num_hidden_layers: args.num_layers, tie_word_embeddings: false });

export class Model extends CausalLM<LayerCache> {
  readonly #args: Args;

  constructor(args: Args) {
    super(trunkOf(args), () => new Block(args));
    this.#args = args;
  }

  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    return sanitizeLayers(super.sanitize(weights), this.#args);
  }
}

export const joins = [...usualJoins, ...latentJoins];

/** The router decides which experts are read: it stays at 8 bits. */
export const quantize = (path: string) => (path.endsWith("classifier") ? { groupSize: 64, bits: 8 } : undefined);

/** The bias of the routing is learned in float32, and small. */
export const keepsDtype = (path: string) => path.endsWith("e_score_correction_bias");

/** What the first feed-forward block takes goes to experts as well, some of which give it back: its norm has to stay. */
export const awq: AwqFacts = {
  noClip: ["q_proj", "q_a_proj", "q_b_proj", "kv_a_proj"],
  groups: [
    ...[0, 1].flatMap((i) => {
      const attention = `self_attn.${i}`;
      return [
        {
          before: `input_layernorm.${i}`,
          layers: ["q_proj", "q_a_proj", "kv_a_proj_with_mqa"].map((name) => `${attention}.${name}`),
          part: attention,
        },
        { before: `${attention}.q_a_layernorm`, layers: [`${attention}.q_b_proj`] },
        downGroup(`mlps.${i}`),
      ];
    }),
    downGroup("mlp.switch_mlp"),
    { before: "post_attention_layernorm.1", layers: ["mlps.1.gate_proj", "mlps.1.up_proj"], part: "mlps.1" },
  ],
};
