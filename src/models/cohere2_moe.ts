/**
 * Command A with experts: Command R7B's blocks, of which all but the first have experts beside shared ones, whose results are
 * averaged or summed.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  type DecoderLayer,
  GatedMLP,
  highest,
  type KeyValueCache,
  type Layer,
  LayerNorm,
  Linear,
  type Mask,
  type MaskRule,
  Module,
  mixExperts,
  type Norm,
  type Residual,
  RMSNorm,
  type Routing,
  SwitchGLU,
  softmaxOfHighest,
  stackExperts,
} from "../nn";
import {
  AttentionType,
  checkExperts,
  checkHeads,
  checkLayerTypes,
  count,
  maskOf,
  ropeFields,
  ropeOf,
  size,
} from "./args";
import { type AwqFacts, downGroup } from "./awq-facts";
import * as cohere2 from "./cohere2";
import { decoder, precise } from "./gguf/decoder";
import { gating } from "./gguf/deepseek2";
import { f32, flag, u32 } from "./gguf/facts";
import { expertLayer, fusedExperts, plainLayer, sharedExpert, TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { CausalLM } from "./language-model";
import { withoutPrefix } from "./nested";

export const Args = z
  .object({
    hidden_size: size,
    head_dim: size.default(128),
    num_hidden_layers: size,
    intermediate_size: size,
    num_attention_heads: size,
    num_key_value_heads: size.nullish(),
    ...ropeFields,
    vocab_size: size,
    layer_norm_eps: z.number().positive().default(1e-5),
    /** RMSNorm in place of LayerNorm, where it is given. */
    rms_norm_eps: z.number().positive().nullish(),
    layer_norm_bias: z.boolean().default(false),
    logit_scale: z.number().default(0.0625),
    attention_bias: z.boolean().default(false),
    tie_word_embeddings: z.boolean().default(true),
    sliding_window: size.default(4096),
    sliding_window_pattern: size.default(4),
    layer_types: z.array(AttentionType).nullish(),
    num_experts: size,
    num_experts_per_tok: size,
    num_shared_experts: count.default(0),
    shared_expert_combination_strategy: z.enum(["average", "sum"]).default("average"),
    expert_selection_fn: z.enum(["softmax", "sigmoid"]).default("softmax"),
    norm_topk_prob: z.boolean().default(true),
    first_k_dense_replace: count.default(0),
    /** Whether layers without experts rotate although they see all: where it is 1. */
    prefix_dense_sliding_window_pattern: size.default(1),
    prefix_dense_intermediate_size: size.nullish(),
  })
  .superRefine(checkHeads)
  .superRefine(checkLayerTypes)
  .superRefine(checkExperts("num_experts_per_tok", "num_experts"));

type Args = z.infer<typeof Args>;

/** The type of a layer: those without experts have a pattern of their own ahead of the others'. */
function typeOf(args: Args, index: number): AttentionType {
  const { first_k_dense_replace: dense, layer_types: types } = args;
  if (types) return types[index]!;
  const [place, period] =
    index < dense ? [index, args.prefix_dense_sliding_window_pattern] : [index - dense, args.sliding_window_pattern];
  return (place + 1) % period === 0 ? "full_attention" : "sliding_attention";
}

class MoE extends Module {
  gate: Layer;
  switch_mlp: SwitchGLU;
  shared_experts?: GatedMLP;

  constructor(readonly args: Args) {
    super();
    const { hidden_size: D, intermediate_size: hidden, num_experts: experts, num_shared_experts: shared } = args;
    this.gate = new Linear(D, experts, { bias: false });
    this.switch_mlp = new SwitchGLU(D, hidden, experts);
    if (shared > 0) this.shared_experts = new GatedMLP(D, hidden * shared);
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    const mixed = mixExperts(x, this.switch_mlp, this.#route(x)).astype(x.dtype);
    if (!this.shared_experts) return mixed;
    const sum = mixed.add(this.shared_experts.forward(x));
    return this.args.shared_expert_combination_strategy === "average" ? sum.divide(2) : sum;
  }

  #route(x: Tensor): Routing {
    const { num_experts_per_tok: k, expert_selection_fn: kind, norm_topk_prob } = this.args;
    const logits = this.gate.forward(x).astype("float32");
    if (kind === "softmax") return softmaxOfHighest(logits, k);
    const experts = highest(logits, k);
    const chosen = logits.takeAlongAxis(experts, -1).sigmoid();
    return { experts, weights: norm_topk_prob ? chosen.divide(chosen.sum({ axis: -1, keepdims: true })) : chosen };
  }
}

const normOf = ({ hidden_size: D, layer_norm_eps, rms_norm_eps, layer_norm_bias: bias }: Args): Module & Norm =>
  rms_norm_eps ? new RMSNorm(D, rms_norm_eps) : new LayerNorm(D, layer_norm_eps, { bias });

/** x + attention(norm(x)) + mlp(norm(x)). */
class Block extends Module implements DecoderLayer {
  self_attn: cohere2.Attention;
  mlp: Layer;
  input_layernorm: Module & Norm;
  readonly mask?: MaskRule;

  constructor(args: Args, index: number) {
    super();
    const { hidden_size: D, intermediate_size, prefix_dense_intermediate_size: dense } = args;
    const type = typeOf(args, index);
    const isDense = index < args.first_k_dense_replace;
    const rotates = type === "sliding_attention" || (isDense && args.prefix_dense_sliding_window_pattern === 1);
    const rotated = { ...args, rope_traditional: true };
    this.self_attn = new cohere2.Attention(rotated, rotates ? ropeOf(rotated, { layerType: type }) : null);
    this.mlp = isDense ? new GatedMLP(D, dense ?? intermediate_size) : new MoE(args);
    this.input_layernorm = normOf(args);
    this.mask = maskOf(type, args);
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const normed = x.branch(this.input_layernorm);
    return x.plus(this.self_attn.forward(normed, mask, cache).add(this.mlp.forward(normed)));
  }
}

export class Model extends CausalLM {
  readonly #experts: number;

  constructor(args: Args) {
    const trunk = { ...args, rms_norm_eps: args.rms_norm_eps ?? args.layer_norm_eps };
    super(trunk, (index) => new Block(args, index), {
      norm: () => normOf(args),
      adjustLogits: (logits) => logits.multiply(args.logit_scale),
    });
    this.#experts = args.num_experts;
  }

  /** Stacks the experts. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = super.sanitize(withoutPrefix(weights));
    for (const layer of this.layers.keys()) {
      const mlp = `model.layers.${layer}.mlp`;
      stackExperts(sanitized, { count: this.#experts, from: `${mlp}.experts`, to: `${mlp}.switch_mlp` });
    }
    return sanitized;
  }
}

/** The router decides which experts are read: it stays as it is. */
export const quantize = (path: string) => (path.endsWith("mlp.gate") ? "leave" : undefined);

const parts = ["", ".switch_mlp", ".shared_experts"].map((name) => `mlp${name}`);

/** One norm is ahead of attention and of the feed-forward block. */
export const awq: AwqFacts = {
  noClip: ["q_proj", "k_proj"],
  groups: [
    {
      before: "input_layernorm",
      layers: [
        ...parts.flatMap((part) => [`${part}.gate_proj`, `${part}.up_proj`]),
        ...["mlp.gate", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
      ],
      part: "mlp",
    },
    ...parts.map(downGroup),
  ],
};

const rootMeanSquare = "attention.layer_norm_rms_epsilon";

export const gguf = decoder("cohere2moe", {
  names: new TensorNames(
    { ...plainLayer, ...expertLayer("mlp"), ...sharedExpert("mlp.shared_experts") },
    { halves: fusedExperts("mlp") },
  ),
  epsilon: ["attention.layer_norm_epsilon", "layer_norm_eps"],
  windows: { period: 4, typeOf: (settings, index) => typeOf(settings as unknown as Args, index) },
  integers: {
    expert_count: "num_experts",
    expert_used_count: "num_experts_per_tok",
    expert_shared_count: "num_shared_experts",
    leading_dense_block_count: "first_k_dense_replace",
  },
  floats: { logit_scale: "logit_scale" },
  flags: { expert_weights_norm: "norm_topk_prob" },
  only: { attention_bias: false, layer_norm_bias: false, prefix_dense_sliding_window_pattern: 1 },
  common: (config) => ({ intermediate_size: denseWidth(config as Args) }),
  read(file, common) {
    const rms = file.number(rootMeanSquare);
    return {
      rms_norm_eps: rms ? precise(rms) : undefined,
      intermediate_size: file.number("expert_feed_forward_length") ?? common.intermediate_size,
      prefix_dense_intermediate_size: common.intermediate_size,
      expert_selection_fn: file.number("expert_gating_func") === gating.softmax ? "softmax" : "sigmoid",
      num_shared_experts: file.number("expert_shared_count") ?? 0,
      norm_topk_prob: common.norm_topk_prob ?? false,
    };
  },
  write(_, config) {
    const args = config as Args;
    const { num_shared_experts: shared, intermediate_size: width, expert_selection_fn: kind } = args;
    if (shared > 0 && args.shared_expert_combination_strategy !== "average") {
      noPlace(`"shared_expert_combination_strategy" "${args.shared_expert_combination_strategy}"`);
    }
    return {
      [rootMeanSquare]: args.rms_norm_eps ? f32(args.rms_norm_eps) : undefined,
      expert_feed_forward_length: u32(width),
      expert_shared_feed_forward_length: shared > 0 ? u32(width * shared) : undefined,
      expert_gating_func: u32(gating[kind]),
      // A softmax of the chosen experts' scores is one of all scores, made to sum to one.
      expert_weights_norm: flag(kind === "softmax" || args.norm_topk_prob),
    };
  },
});

function denseWidth({ prefix_dense_intermediate_size: dense, intermediate_size }: Args): number {
  return dense ?? intermediate_size;
}
