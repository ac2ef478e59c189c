/** Ling and Ring 1 and 2 (Bailing): attention with one projection ahead of it, and experts beside shared ones. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  type DecoderLayer,
  GatedMLP,
  type KeyValueCache,
  type Layer,
  type Mask,
  Module,
  NamedAttention,
  type Residual,
  RMSNorm,
  stackExperts,
} from "../nn";
import { checkHeads, count, denseFields, headsOf, ropeOf, size } from "./args";
import { blockAwq } from "./awq-facts";
import { MoE, ownName } from "./bailing_hybrid";
import { type JoinedTensors, pairedRows } from "./gguf/changes";
import { decoder, expertGroups } from "./gguf/decoder";
import { gating } from "./gguf/deepseek2";
import { type GgufDescription, u32 } from "./gguf/facts";
import { expertLayer, plainLayer, sharedExpert, TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { CausalLM } from "./language-model";
import { withoutDraftLayers } from "./mtp/draft-layers";
import { behind, depthOf, draftTensors, type MtpFacts } from "./mtp/facts";
import { finalNames, LayeredHead } from "./mtp/layered-head";

export const fields = {
  ...denseFields,
  max_position_embeddings: size,
  moe_intermediate_size: size,
  num_experts: size.nullable(),
  num_shared_experts: count,
  norm_topk_prob: z.boolean(),
  num_experts_per_tok: size,
  num_key_value_heads: size,
  first_k_dense_replace: count,
  use_bias: z.boolean().default(false),
  use_qkv_bias: z.boolean().default(false),
  /** Whether the columns of the head are made to have length one. */
  norm_head: z.boolean().default(false),
  use_qk_norm: z.boolean().default(false),
  tie_word_embeddings: z.boolean().default(false),
  partial_rotary_factor: z.number().positive().max(1).default(1),
  rotary_dim: size.nullish(),
  moe_router_enable_expert_bias: z.boolean().default(false),
  routed_scaling_factor: z.number().default(1),
  score_function: z.enum(["softmax", "sigmoid"]).default("softmax"),
  n_group: size.default(1),
  topk_group: size.default(4),
  moe_shared_expert_intermediate_size: size.nullish(),
  moe_router_enable_shared_expert: z.boolean().default(true),
};

type ExpertCounts = { num_experts: number | null; num_experts_per_tok: number; n_group: number };

/** For `superRefine`: no more experts in use than there are, in groups of one size. */
export function checkExperts(args: ExpertCounts, context: z.RefinementCtx): void {
  const { num_experts: experts, num_experts_per_tok: used, n_group: groups } = args;
  const problem = (field: string, message: string) => context.addIssue({ code: "custom", path: [field], message });
  if (experts === null) return;
  if (used > experts) problem("num_experts_per_tok", `is ${used}, but "num_experts" is ${experts}`);
  if (experts % groups !== 0 || (groups > 1 && experts / groups < 2)) {
    problem("n_group", `is ${groups}, but must divide "num_experts" (${experts}) into groups of 2 or more`);
  }
}

export const Args = z.object(fields).superRefine(checkHeads).superRefine(checkExperts);

type Args = z.infer<typeof Args>;

/** The attention of a layer that sees all. */
export function attentionOf(args: Args, traditional = false): NamedAttention {
  const { hidden_size: dims, rms_norm_eps: eps, use_qkv_bias: bias, use_bias: outputBias } = args;
  const sizes = headsOf(args);
  const rotated = args.rotary_dim ?? Math.trunc(sizes.headDim * args.partial_rotary_factor);
  return new NamedAttention({
    ...sizes,
    ...{ dims, bias, outputBias, inputs: "query_key_value", output: "dense" },
    rope: { ...ropeOf({ ...args, rope_traditional: traditional }), dims: rotated },
    norms: args.use_qk_norm ? { queries: "query_layernorm", keys: "key_layernorm", eps } : undefined,
  });
}

/** The feed-forward block, or the experts, of a layer. */
export function feedForward(args: Args, index: number): Layer {
  const { num_experts: experts, use_bias: bias } = args;
  const isSparse = experts !== null && index >= args.first_k_dense_replace;
  return isSparse ? expertsOf(args, experts) : new GatedMLP(args.hidden_size, args.intermediate_size, { bias });
}

function expertsOf(args: Args, experts: number): MoE {
  const { moe_intermediate_size, moe_shared_expert_intermediate_size: own, num_shared_experts: count } = args;
  const shared = args.moe_router_enable_shared_expert ? count : 0;
  const width = (own ?? moe_intermediate_size) * shared;
  return new MoE({ ...args, num_shared_experts: shared, moe_shared_expert_intermediate_size: width }, experts);
}

class Block extends Module implements DecoderLayer {
  attention: NamedAttention;
  mlp: Layer;
  input_layernorm: RMSNorm;
  post_attention_layernorm: RMSNorm;

  constructor(args: Args, index: number) {
    super();
    const { hidden_size: D, rms_norm_eps: eps } = args;
    this.attention = attentionOf(args);
    this.mlp = feedForward(args, index);
    this.input_layernorm = new RMSNorm(D, eps);
    this.post_attention_layernorm = new RMSNorm(D, eps);
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const h = x.plus(this.attention.forward(x.branch(this.input_layernorm), mask, cache));
    return h.plus(this.mlp.forward(h.branch(this.post_attention_layernorm)));
  }
}

export class Model extends CausalLM {
  readonly #args: Args;

  constructor(args: Args) {
    super(args, (index) => new Block(args, index), { names: { embedding: "word_embeddings" } });
    this.#args = args;
  }

  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    return sanitizeBailing(super.sanitize(weights), this.#args);
  }
}

/** Stacks the experts, gives routers their names here, brings the head's columns to their length, and drops draft layers. */
export function sanitizeBailing(weights: Map<string, Tensor>, args: Args): Map<string, Tensor> {
  const { num_experts: experts, norm_head } = args;
  const own = withoutDraftLayers(weights, args.num_hidden_layers);
  const sanitized = new Map([...own].map(([name, x]) => [ownName(name), x]));
  const head = sanitized.get("lm_head.weight");
  if (norm_head && head) {
    const lengths = head.astype("float32").square().sum({ axis: 0, keepdims: true }).sqrt().add(1e-7);
    sanitized.set("lm_head.weight", head.divide(lengths).astype(head.dtype));
  }
  for (let layer = 0; experts && layer < args.num_hidden_layers; layer++) {
    const mlp = `model.layers.${layer}.mlp`;
    stackExperts(sanitized, { count: experts, from: `${mlp}.experts`, to: `${mlp}.switch_mlp` });
  }
  return sanitized;
}

export const mtp: MtpFacts = {
  sanitize(weights, { num_hidden_layers: layers, num_experts: experts }: Args) {
    const drafts = draftTensors(weights, behind(layers));
    const found = new Map([...drafts].map(([name, weight]) => [ownName(name), weight]));
    for (let i = 0; experts && i < depthOf(found); i++) {
      const mlp = `layers.${i}.mlp`;
      stackExperts(found, { count: experts, from: `${mlp}.experts`, to: `${mlp}.switch_mlp` });
    }
    return found;
  },
  head(trunk, args: Args, depth) {
    const blocks = Array.from({ length: depth }, (_, i) => new Block(args, args.num_hidden_layers + i));
    return new LayeredHead(trunk, blocks, args, { names: finalNames });
  },
};

/** The router decides which experts are read: it stays at 8 bits. */
export const quantize = (path: string) =>
  path.endsWith("mlp.gate.gate_proj") ? { groupSize: 64, bits: 8 } : undefined;

/** The bias of the routing is learned in float32, and small. */
export const keepsDtype = (path: string) => path.endsWith("expert_bias");

export const awq = blockAwq({ attention: "attention", router: "gate.gate_proj" });

/** Of Ling 1, whose heads are paired otherwise and have no norms, files have queries, keys and values one by one. */
function projections(config: object): JoinedTensors {
  const args = config as Args;
  if (args.use_qk_norm) return {};
  const { heads, kvHeads, headDim } = headsOf(args);
  const [queries, keys] = [pairedRows(heads), pairedRows(kvHeads)];
  return {
    "attention.query_key_value": {
      parts: ["attn_q", "attn_k", "attn_v"],
      movesRows: true,
      join: ([q, k, v]) => mx.concatenate([queries.read(q!), keys.read(k!), v!], { axis: 0 }),
      split(x) {
        const [q, k, v] = x.split([heads * headDim, (heads + kvHeads) * headDim], 0) as [Tensor, Tensor, Tensor];
        return [queries.write(q), keys.write(k), v];
      },
    },
  };
}

/** What llama.cpp has of the first Ling alone. */
function checkFirst(args: Pick<Args, "score_function" | "first_k_dense_replace" | "n_group">): void {
  if (args.score_function !== "softmax") noPlace(`"score_function" "${args.score_function}" without "use_qk_norm"`);
  if (args.first_k_dense_replace > 0)
    noPlace(`"first_k_dense_replace" ${args.first_k_dense_replace} without "use_qk_norm"`);
  if (args.n_group > 1) noPlace(`"n_group" ${args.n_group} without "use_qk_norm"`);
}

const isSecond = (file: GgufDescription) => file.shape("blk.0.attn_q_norm.weight") !== undefined;

/** Of Ling and Ring 2; 1 is an architecture of its own. */
export const gguf = decoder("bailingmoe2", {
  names: new TensorNames(
    {
      ...plainLayer,
      ...expertLayer("mlp"),
      ...sharedExpert("mlp.shared_experts"),
      attn_qkv: "attention.query_key_value",
      attn_output: "attention.dense",
      attn_q_norm: "attention.query_layernorm",
      attn_k_norm: "attention.key_layernorm",
      ffn_gate_inp: "mlp.gate.gate_proj",
    },
    { outer: { token_embd: "model.word_embeddings" }, parameters: { "exp_probs_b.bias": "mlp.gate.expert_bias" } },
  ),
  joined: projections,
  variant: (settings) => ((settings as unknown as Args).use_qk_norm ? "bailingmoe2" : "bailingmoe"),
  turning: ({ headDim, ...settings }) => {
    const { rotary_dim: dims, partial_rotary_factor: part } = settings as unknown as Args;
    return dims ?? Math.trunc(headDim * part);
  },
  integers: {
    expert_count: "num_experts",
    expert_used_count: "num_experts_per_tok",
    expert_feed_forward_length: "moe_intermediate_size",
    expert_shared_feed_forward_length: "moe_shared_expert_intermediate_size",
    expert_shared_count: "num_shared_experts",
    leading_dense_block_count: "first_k_dense_replace",
    ...expertGroups,
  },
  floats: { expert_weights_scale: "routed_scaling_factor" },
  flags: { expert_weights_norm: "norm_topk_prob" },
  only: { use_bias: false, use_qkv_bias: false, moe_router_enable_shared_expert: true },
  read: (file) => ({
    use_qk_norm: isSecond(file),
    score_function: isSecond(file) && file.number("expert_gating_func") !== gating.softmax ? "sigmoid" : "softmax",
    moe_router_enable_expert_bias:
      file.shape(`blk.${file.number("leading_dense_block_count") ?? 0}.exp_probs_b.bias`) !== undefined,
  }),
  write(settings) {
    const {
      score_function,
      moe_intermediate_size,
      moe_shared_expert_intermediate_size: own,
      ...args
    } = settings as unknown as Args;
    if (!args.use_qk_norm) checkFirst({ ...args, score_function });
    return {
      expert_gating_func: u32(gating[score_function]),
      expert_shared_feed_forward_length: u32(own ?? moe_intermediate_size),
    };
  },
});
