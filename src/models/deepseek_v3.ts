/**
 * DeepSeek V3 and R1: latent attention, and experts in groups beside one that all tokens use; the first layers are dense.
 * Also Kimi K2 and other models of its shape.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  type Cache,
  type DecoderLayer,
  fullAttentionArray,
  GatedMLP,
  GroupedRouter,
  initializeRope,
  type KeyValueCache,
  LatentAttention,
  type LatentAttentionSizes,
  type Layer,
  latentJoins,
  Module,
  mixExperts,
  type RotaryEmbedding,
  SwitchGLU,
  splitKeysValues,
  stackExperts,
  usualJoins,
  yarnTemperature,
} from "../nn";
import { type RopeFields, ropeFields, ropeOptions, size } from "./args";
import { blockAwq } from "./awq-facts";
import { gating, latent } from "./gguf/deepseek2";
import { CausalLM, type TrunkArgs } from "./language-model";
import { Block } from "./llama";
import type { Trunk } from "./mtp/draft-head";
import { withoutDraftLayers } from "./mtp/draft-layers";
import { behind, depthOf, draftTensors, type MtpFacts } from "./mtp/facts";
import { LayeredHead } from "./mtp/layered-head";

export const expertFields = {
  moe_intermediate_size: size.default(1407),
  n_shared_experts: size.nullish(),
  n_routed_experts: size.nullish(),
  routed_scaling_factor: z.number().default(1),
  topk_method: z.literal("noaux_tc").default("noaux_tc"),
  scoring_func: z.literal("sigmoid").default("sigmoid"),
  norm_topk_prob: z.boolean().default(true),
  n_group: size.default(1),
  topk_group: size.default(1),
  num_experts_per_tok: size.default(1),
  moe_layer_freq: size.default(1),
  first_k_dense_replace: z.int().nonnegative().default(0),
};

export const fields = {
  vocab_size: size.default(102_400),
  hidden_size: size.default(4096),
  intermediate_size: size.default(11_008),
  num_hidden_layers: size.default(30),
  num_attention_heads: size.default(32),
  ...expertFields,
  kv_lora_rank: size.default(512),
  q_lora_rank: size.nullable().default(1536),
  qk_rope_head_dim: size.default(64),
  v_head_dim: size.default(128),
  qk_nope_head_dim: size.default(128),
  max_position_embeddings: size.default(2048),
  rms_norm_eps: z.number().positive().default(1e-6),
  ...ropeFields,
  attention_bias: z.boolean().default(false),
};

interface ExpertCounts {
  n_routed_experts?: number | null;
  num_experts_per_tok: number;
  n_group: number;
  topk_group: number;
}

/** For `superRefine`: no more experts or groups in use than there are. */
export function checkExperts(args: ExpertCounts, context: z.RefinementCtx): void {
  const problem = (field: string, message: string) => context.addIssue({ code: "custom", path: [field], message });
  const experts = args.n_routed_experts;
  if (!experts) return;
  if (args.num_experts_per_tok > experts) {
    problem("num_experts_per_tok", `is ${args.num_experts_per_tok}, but "n_routed_experts" is ${experts}`);
  }
  if (experts % args.n_group !== 0 || (args.n_group > 1 && experts / args.n_group < 2)) {
    problem("n_group", `is ${args.n_group}, but must divide "n_routed_experts" (${experts}) into groups of 2 or more`);
  }
  if (args.topk_group > args.n_group) {
    problem("topk_group", `is ${args.topk_group}, but "n_group" is ${args.n_group}`);
  }
}

export const Args = z.object(fields).superRefine(checkExperts);

export type Args = z.infer<typeof Args>;

/** Scores are masked before they reach the attention kernel, so masks are arrays. */
export const arrayMask = fullAttentionArray;

type AttentionArgs = Pick<
  Args,
  | "hidden_size"
  | "num_attention_heads"
  | "q_lora_rank"
  | "kv_lora_rank"
  | "qk_nope_head_dim"
  | "qk_rope_head_dim"
  | "v_head_dim"
  | "attention_bias"
>;

/** Shapes of its attention. */
export const attentionSizes = (args: AttentionArgs): LatentAttentionSizes => ({
  dims: args.hidden_size,
  heads: args.num_attention_heads,
  queryRank: args.q_lora_rank,
  rank: args.kv_lora_rank,
  plainDims: args.qk_nope_head_dim,
  rotatedDims: args.qk_rope_head_dim,
  valueDims: args.v_head_dim,
  bias: args.attention_bias,
});

type ScalingArgs = AttentionArgs & RopeFields & Pick<Args, "max_position_embeddings">;

/** How its rotated features turn, and the factor on the scores. */
export function latentScaling(args: ScalingArgs, usualBase = 10_000): { rope: RotaryEmbedding; scale: number } {
  const { base, scaling } = ropeOptions(args, { base: usualBase });
  const { qk_rope_head_dim: dims, max_position_embeddings: maxPositions } = args;
  const stretch = scaling?.mscale_all_dim ? yarnTemperature(scaling.factor ?? 1, scaling.mscale_all_dim) : 1;
  return {
    rope: initializeRope({ dims, base, traditional: true, scaling, maxPositions }),
    scale: (args.qk_nope_head_dim + dims) ** -0.5 * stretch ** 2,
  };
}

function attentionOf(args: Args): LatentAttention {
  const { rope, scale } = latentScaling(args);
  return new LatentAttention(attentionSizes(args), rope, scale);
}

export const mlpOf = (dims: number, hiddenDims: number) => new GatedMLP(dims, hiddenDims, { downLast: true });

export type ExpertArgs = Pick<
  Args,
  | "hidden_size"
  | "moe_intermediate_size"
  | "n_shared_experts"
  | "num_experts_per_tok"
  | "n_group"
  | "topk_group"
  | "norm_topk_prob"
  | "routed_scaling_factor"
>;

export class MoE extends Module {
  switch_mlp: SwitchGLU;
  gate: GroupedRouter;
  shared_experts?: Layer;

  constructor(args: ExpertArgs, experts: number) {
    super();
    const { hidden_size: dims, moe_intermediate_size: hidden, n_shared_experts: shared } = args;
    this.switch_mlp = new SwitchGLU(dims, hidden, experts);
    this.gate = new GroupedRouter({
      dims,
      experts,
      expertsPerToken: args.num_experts_per_tok,
      groups: args.n_group,
      groupsPerToken: args.topk_group,
      normalize: args.norm_topk_prob,
      scale: args.routed_scaling_factor,
    });
    if (shared) this.shared_experts = mlpOf(dims, hidden * shared);
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    const mixed = mixExperts(x, this.switch_mlp, this.gate.forward(x)).astype(x.dtype);
    return this.shared_experts ? mixed.add(this.shared_experts.forward(x)) : mixed;
  }
}

type FeedForwardArgs = ExpertArgs &
  Pick<Args, "intermediate_size" | "n_routed_experts" | "first_k_dense_replace" | "moe_layer_freq">;

/** The feed-forward block of a layer. */
export function feedForward(args: FeedForwardArgs, index: number): Layer {
  const { n_routed_experts: experts, first_k_dense_replace: dense, moe_layer_freq: frequency } = args;
  const isSparse = index >= dense && index % frequency === 0;
  return experts && isSparse ? new MoE(args, experts) : mlpOf(args.hidden_size, args.intermediate_size);
}

type LatentArgs = AttentionArgs &
  Omit<TrunkArgs, "tie_word_embeddings"> & { n_routed_experts?: number | null; tie_word_embeddings?: boolean };

/** A decoder with latent attention and experts, whatever its layers are, with the names that checkpoints give their parts. */
export class LatentLM<C extends Cache = KeyValueCache> extends CausalLM<C> {
  readonly #args: LatentArgs;

  constructor(args: LatentArgs, block: (index: number) => DecoderLayer<C>) {
    super({ tie_word_embeddings: false, ...args }, block);
    this.#args = args;
  }

  /** Stacks the experts, takes the projection of keys and values apart, and drops the layers that predict further tokens. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const { n_routed_experts: experts, num_hidden_layers: layers } = this.#args;
    const sanitized = withoutDraftLayers(super.sanitize(weights), layers);
    const sizes = attentionSizes(this.#args);
    for (let layer = 0; layer < layers; layer++) {
      const mlp = `model.layers.${layer}.mlp`;
      if (experts) stackExperts(sanitized, { count: experts, from: `${mlp}.experts`, to: `${mlp}.switch_mlp` });
      splitKeysValues(sanitized, `model.layers.${layer}.self_attn`, sizes);
    }
    return sanitized;
  }
}

export class Model extends LatentLM {
  constructor(args: Args) {
    super(args, (index) => block(args, index));
  }
}

/** For draft layers that are the model's next ones. @param block a layer of the model, by its number */
export const latentMtp = <A extends LatentArgs & { rms_norm_eps: number }>(
  block: (args: A, index: number) => Module,
): MtpFacts => ({
  sanitize(weights, args: A) {
    const found = draftTensors(weights, behind(args.num_hidden_layers));
    for (const index of Array.from({ length: depthOf(found) }).keys()) {
      const [mlp, count] = [`layers.${index}.mlp`, args.n_routed_experts];
      if (count) stackExperts(found, { count, from: `${mlp}.experts`, to: `${mlp}.switch_mlp` });
      splitKeysValues(found, `layers.${index}.self_attn`, attentionSizes(args));
    }
    return found;
  },
  head(trunk: Trunk, args: A, depth) {
    const blocks = Array.from({ length: depth }, (_, i) => block(args, args.num_hidden_layers + i));
    return new LayeredHead(trunk, blocks, args);
  },
});

const block = (args: Args, index: number) => new Block(attentionOf(args), feedForward(args, index), args, arrayMask);

export const mtp = latentMtp(block);

export const joins = [...usualJoins, ...latentJoins];

/** The bias of the routing is learned in float32, and small. */
export const keepsDtype = (path: string) => path.endsWith("e_score_correction_bias");

export const gguf = latent({ matches: (file) => file.number("expert_gating_func") === gating.sigmoid });

export const awq = blockAwq();
