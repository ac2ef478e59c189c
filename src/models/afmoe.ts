/**
 * Arcee's Trinity (AFMoE): Qwen 3's attention behind a sigmoid gate, norms before and after each part, and experts by
 * sigmoids; three layers that slide and rotate to each layer that sees all and has no positions.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  type DecoderLayer,
  divideHeads,
  GatedMLP,
  type KeyValueCache,
  type Layer,
  Linear,
  type Mask,
  type MaskRule,
  Module,
  mixExperts,
  parameter,
  type Residual,
  RMSNorm,
  routeWithinGroups,
  type Split,
  SwitchGLU,
  stackExperts,
} from "../nn";
import {
  AttentionType,
  checkExperts,
  checkHeads,
  checkLayerTypes,
  count,
  denseFields,
  maskOf,
  ropeOf,
  size,
} from "./args";
import { type AwqFacts, blockAwq } from "./awq-facts";
import { countedExperts, decoder, expertGroups } from "./gguf/decoder";
import { gating } from "./gguf/deepseek2";
import { u32 } from "./gguf/facts";
import { sandwichLayer, sharedExpert, TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { CausalLM } from "./language-model";
import * as qwen3 from "./qwen3";

export const Args = z
  .object({
    ...denseFields,
    layer_types: z.array(AttentionType),
    vocab_size: size.default(200_192),
    hidden_size: size.default(2048),
    intermediate_size: size.default(6144),
    moe_intermediate_size: size.default(1024),
    num_hidden_layers: size.default(32),
    num_attention_heads: size.default(32),
    num_key_value_heads: size.default(4),
    head_dim: size.default(64),
    rms_norm_eps: z.number().positive().default(1e-5),
    tie_word_embeddings: z.boolean().default(false),
    num_experts: size.default(128),
    num_experts_per_tok: size.default(8),
    num_shared_experts: count.default(1),
    num_dense_layers: count.default(2),
    route_norm: z.boolean().default(true),
    route_scale: z.number().default(2.826),
    score_func: z.enum(["sigmoid", "softmax"]).default("sigmoid"),
    n_group: size.default(1),
    topk_group: size.default(1),
    sliding_window: size.default(2048),
    mup_enabled: z.boolean().default(true),
  })
  .superRefine(checkHeads)
  .superRefine(checkLayerTypes)
  .superRefine(checkExperts("num_experts_per_tok", "num_experts"));

type Args = z.infer<typeof Args>;

class Attention extends qwen3.Attention {
  gate_proj: Layer;

  constructor(args: Args, type: AttentionType) {
    const rotated = { ...args, rope_traditional: false };
    super(args, { rope: type === "sliding_attention" ? ropeOf(rotated, { layerType: type }) : null });
    this.gate_proj = new Linear(args.hidden_size, this.heads * this.headDim, { bias: false });
  }

  protected override attend(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    return super.attend(x, mask, cache).multiply(this.gate_proj.forward(x).sigmoid());
  }

  override shard(split: Split): void {
    divideHeads(this, split, { layers: ["gate_proj"] });
  }
}

/** Checkpoints have the router's projection one level further down than other models. */
class Router extends Module {
  constructor(readonly gate: Layer) {
    super();
  }
}

class MoE extends Module {
  router: Router;
  /** Only takes part in the choice, (experts). */
  expert_bias: Tensor;
  experts: SwitchGLU;
  shared_experts?: GatedMLP;

  constructor(readonly args: Args) {
    super();
    const { hidden_size: dims, moe_intermediate_size: hidden, num_experts: experts, num_shared_experts: shared } = args;
    this.router = new Router(new Linear(dims, experts, { bias: false }));
    this.expert_bias = parameter(mx.zeros([experts]));
    this.experts = new SwitchGLU(dims, hidden, experts);
    if (shared > 0) this.shared_experts = new GatedMLP(dims, hidden * shared);
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    const { args } = this;
    const logits = this.router.gate.forward(x).astype("float32");
    const scores = args.score_func === "sigmoid" ? logits.sigmoid() : mx.softmax(logits, { axis: -1 });
    const routing = routeWithinGroups(scores, this.expert_bias, {
      expertsPerToken: args.num_experts_per_tok,
      groups: args.n_group,
      groupsPerToken: args.topk_group,
      normalize: args.route_norm,
      scale: args.route_scale,
    });
    const mixed = mixExperts(x, this.experts, routing).astype(x.dtype);
    return this.shared_experts ? mixed.add(this.shared_experts.forward(x)) : mixed;
  }
}

class Block extends Module implements DecoderLayer {
  self_attn: Attention;
  mlp: Layer;
  input_layernorm: RMSNorm;
  post_attention_layernorm: RMSNorm;
  pre_mlp_layernorm: RMSNorm;
  post_mlp_layernorm: RMSNorm;
  readonly mask?: MaskRule;

  constructor(args: Args, index: number) {
    super();
    const { hidden_size: D, rms_norm_eps: eps } = args;
    const type = args.layer_types[index]!;
    this.self_attn = new Attention(args, type);
    this.mlp = index < args.num_dense_layers ? new GatedMLP(D, args.intermediate_size) : new MoE(args);
    this.input_layernorm = new RMSNorm(D, eps);
    this.post_attention_layernorm = new RMSNorm(D, eps);
    this.pre_mlp_layernorm = new RMSNorm(D, eps);
    this.post_mlp_layernorm = new RMSNorm(D, eps);
    this.mask = maskOf(type, args);
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const attended = this.self_attn.forward(x.branch(this.input_layernorm), mask, cache);
    const h = x.plus(this.post_attention_layernorm.forward(attended));
    return h.plus(this.post_mlp_layernorm.forward(this.mlp.forward(h.branch(this.pre_mlp_layernorm))));
  }
}

export class Model extends CausalLM {
  readonly #experts: number;

  constructor(args: Args) {
    super(args, (index) => new Block(args, index), {
      embeddingScale: args.mup_enabled ? Math.sqrt(args.hidden_size) : undefined,
    });
    this.#experts = args.num_experts;
  }

  /** Stacks the experts, which the original checkpoints have one by one. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = super.sanitize(weights);
    for (const layer of this.layers.keys()) {
      const experts = `model.layers.${layer}.mlp.experts`;
      stackExperts(sanitized, { count: this.#experts, from: experts, to: experts });
    }
    return sanitized;
  }
}

/** The router decides which experts are read: it stays at 8 bits. */
export const quantize = (path: string) => (path.endsWith("router.gate") ? { groupSize: 64, bits: 8 } : undefined);

/** The bias of the routing is learned in float32, and small. */
export const keepsDtype = (path: string) => path.endsWith("expert_bias");

export const joins = [
  ["q_proj", "k_proj", "v_proj"],
  ["gate_proj", "up_proj"],
];

export const awq: AwqFacts = blockAwq({ mlpNorm: "pre_mlp_layernorm", router: "router.gate" });

export const gguf = decoder("afmoe", {
  names: new TensorNames(
    {
      ...sandwichLayer,
      attn_gate: "self_attn.gate_proj",
      ffn_norm: "pre_mlp_layernorm",
      post_ffw_norm: "post_mlp_layernorm",
      ffn_gate_inp: "mlp.router.gate",
      ffn_gate_exps: "mlp.experts.gate_proj",
      ffn_up_exps: "mlp.experts.up_proj",
      ffn_down_exps: "mlp.experts.down_proj",
      ...sharedExpert("mlp.shared_experts"),
    },
    { parameters: { "exp_probs_b.bias": "mlp.expert_bias" } },
  ),
  windows: { period: 4 },
  integers: {
    ...countedExperts,
    ...expertGroups,
    leading_dense_block_count: "num_dense_layers",
  },
  floats: { expert_weights_scale: "route_scale" },
  flags: { expert_weights_norm: "route_norm" },
  only: { attention_bias: false, mup_enabled: true },
  read: (file, { num_hidden_layers: layers, layer_types }) => ({
    layer_types: layer_types ?? Array(layers as number).fill("full_attention"),
    score_func: file.number("expert_gating_func") === gating.softmax ? "softmax" : "sigmoid",
  }),
  write(settings) {
    const { layer_types: types, score_func } = settings as unknown as Args;
    // llama.cpp turns heads of all layers but each fourth, whether they slide or not.
    if (types.some((type, i) => (type === "full_attention") !== ((i + 1) % 4 === 0))) {
      noPlace('"layer_types" that are not full_attention each fourth layer');
    }
    return { expert_gating_func: u32(gating[score_func]) };
  },
});
