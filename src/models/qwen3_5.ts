/**
 * Qwen 3.5: Qwen 3 with three of four layers' attention replaced by a gated delta rule, which carries a state of fixed size,
 * and the others' gated and rotated in part. A mixture of experts where the configuration counts experts.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  ArraysCache,
  attention,
  type Cache,
  type DecoderLayer,
  type DeltaLayer,
  divideHeads,
  GatedDeltaNet,
  type GatedDeltaSizes,
  GatedMLP,
  initializeRope,
  type Joins,
  joinHeads,
  type KeyValueCache,
  type Layer,
  Linear,
  type Mask,
  Module,
  project,
  type Residual,
  RMSNorm,
  RopeScaling,
  type RotaryEmbedding,
  recurrent,
  SharedExpertMLP,
  type Split,
  splitHeads,
  stackExperts,
  usualJoins,
} from "../nn";
import { attentionFields, checkHeads, count, headsOf, size, trunkFields } from "./args";
import { type AwqFacts, denseAwq } from "./awq-facts";
import { qwen35 } from "./gguf/qwen35";
import { CausalLM } from "./language-model";
import * as llama from "./llama";
import { DraftHead, type DraftParts, type Trunk } from "./mtp/draft-head";
import { depthOf, draftTensors, type MtpFacts } from "./mtp/facts";
import { NestedLM, nestedArgs } from "./nested";

export const textFields = {
  ...trunkFields,
  ...attentionFields,
  hidden_size: size.default(4096),
  num_hidden_layers: size.default(32),
  vocab_size: size.default(151_936),
  rms_norm_eps: z.number().positive().default(1e-6),
  tie_word_embeddings: z.boolean().default(false),
  intermediate_size: size.default(14_336),
  num_attention_heads: size.default(32),
  num_key_value_heads: size.default(8),
  rope_parameters: RopeScaling.nullish(),
  partial_rotary_factor: z.number().positive().max(1).nullish(),
  full_attention_interval: size.default(4),
  layer_types: z.array(z.enum(["linear_attention", "full_attention"])).nullish(),
  linear_num_value_heads: size.default(64),
  linear_num_key_heads: size.default(16),
  linear_key_head_dim: size.default(192),
  linear_value_head_dim: size.default(128),
  linear_conv_kernel_dim: size.default(4),
  num_experts: count.default(0),
  num_experts_per_tok: count.default(0),
  moe_intermediate_size: count.default(0),
  shared_expert_intermediate_size: count.default(0),
  norm_topk_prob: z.boolean().default(true),
};

type TextFields = z.infer<z.ZodObject<typeof textFields>>;

/** For `superRefine`: heads that share evenly, a type for each layer, and experts that are whole. */
export function checkHybrid(args: TextFields, context: z.RefinementCtx): void {
  const problem = (field: keyof TextFields, message: string) =>
    context.addIssue({ code: "custom", path: [field], message });
  const { linear_num_value_heads: valueHeads, linear_num_key_heads: keyHeads, num_experts: experts } = args;
  if (valueHeads % keyHeads !== 0) {
    problem(
      "linear_num_value_heads",
      `is ${valueHeads}, but must be a multiple of "linear_num_key_heads" (${keyHeads})`,
    );
  }
  if (args.layer_types && args.layer_types.length !== args.num_hidden_layers) {
    problem(
      "layer_types",
      `has ${args.layer_types.length} entries, but "num_hidden_layers" is ${args.num_hidden_layers}`,
    );
  }
  if (experts === 0) return;
  for (const field of ["num_experts_per_tok", "moe_intermediate_size", "shared_expert_intermediate_size"] as const) {
    if (args[field] === 0) problem(field, `must be more than 0, as "num_experts" is ${experts}`);
  }
  if (args.num_experts_per_tok > experts) {
    problem("num_experts_per_tok", `is ${args.num_experts_per_tok}, but "num_experts" is ${experts}`);
  }
}

const TextArgs = z.object(textFields).superRefine(checkHeads).superRefine(checkHybrid);

type TextArgs = z.infer<typeof TextArgs>;

export const Args = nestedArgs(TextArgs);

/** Only the first features of a head turn. @param step positions from one row to the next */
export function ropeOf(
  { rope_parameters, rope_theta, rope_scaling, ...args }: Omit<TextArgs, "layer_types">,
  step = 1,
): RotaryEmbedding {
  const share = rope_parameters?.partial_rotary_factor ?? args.partial_rotary_factor ?? 0.25;
  return initializeRope({
    dims: Math.trunc(headsOf(args).headDim * share),
    base: rope_parameters?.rope_theta ?? rope_theta ?? 100_000,
    scaling: step === 1 ? (rope_parameters ?? rope_scaling) : { type: "linear", factor: 1 / step },
    maxPositions: args.max_position_embeddings ?? 131_072,
  });
}

/** Attention whose results pass a sigmoid gate, which the queries' projection makes beside each head. */
export class GatedAttention extends Module {
  q_proj: Layer;
  k_proj: Layer;
  v_proj: Layer;
  o_proj: Layer;
  q_norm: RMSNorm;
  k_norm: RMSNorm;
  readonly rope: RotaryEmbedding;
  readonly heads: number;
  readonly kvHeads: number;
  readonly scale: number;

  constructor(args: TextArgs) {
    super();
    const { hidden_size: D, attention_bias: bias } = args;
    const { heads, kvHeads, headDim } = headsOf(args);
    this.q_proj = new Linear(D, heads * headDim * 2, { bias });
    this.k_proj = new Linear(D, kvHeads * headDim, { bias });
    this.v_proj = new Linear(D, kvHeads * headDim, { bias });
    this.o_proj = new Linear(heads * headDim, D, { bias });
    this.q_norm = new RMSNorm(headDim, args.rms_norm_eps);
    this.k_norm = new RMSNorm(headDim, args.rms_norm_eps);
    this.rope = ropeOf(args);
    this.heads = heads;
    this.kvHeads = kvHeads;
    this.scale = headDim ** -0.5;
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const { rope, kvHeads } = this;
    const [queriesAndGates, keys, values] = project(x, [this.q_proj, this.k_proj, this.v_proj]) as Triple;
    const [queries, gates] = splitHeads(queriesAndGates, this.heads).split(2, -1) as [Tensor, Tensor];
    const q = rope.forward(this.q_norm.forward(queries), cache?.offset);
    const k = rope.forward(this.k_norm.forward(splitHeads(keys, kvHeads)), cache?.offset);
    const out = attention(q, k, splitHeads(values, kvHeads), { scale: this.scale, mask, cache });
    return this.o_proj.forward(joinHeads(gated(out, gates)));
  }

  shard(split: Split): void {
    divideHeads(this, split);
  }
}

const gated = mx.compile((x: Tensor, gate: Tensor) => x.multiply(gate.sigmoid()), { shapeless: true });

type Triple = [Tensor, Tensor, Tensor];

class DeltaBlock extends Module implements DecoderLayer<ArraysCache> {
  input_layernorm: RMSNorm;
  post_attention_layernorm: RMSNorm;
  readonly mask = recurrent;

  constructor(
    readonly linear_attn: DeltaLayer,
    readonly mlp: Layer,
    { hidden_size, rms_norm_eps }: TextArgs,
  ) {
    super();
    this.input_layernorm = new RMSNorm(hidden_size, rms_norm_eps);
    this.post_attention_layernorm = new RMSNorm(hidden_size, rms_norm_eps);
  }

  forward(x: Residual, own: Mask, cache?: ArraysCache): Residual {
    const h = x.plus(this.linear_attn.forward(x.branch(this.input_layernorm), own as Tensor | null, cache));
    return h.plus(this.mlp.forward(h.branch(this.post_attention_layernorm)));
  }

  makeCache(): ArraysCache {
    return new ArraysCache(2);
  }
}

export const deltaSizes = (args: TextArgs): GatedDeltaSizes => ({
  dims: args.hidden_size,
  keyHeads: args.linear_num_key_heads,
  valueHeads: args.linear_num_value_heads,
  keyDim: args.linear_key_head_dim,
  valueDim: args.linear_value_head_dim,
  kernelSize: args.linear_conv_kernel_dim,
  eps: args.rms_norm_eps,
});

/** The feed-forward block of a layer: experts, or one block for all. */
export function feedForward(args: TextArgs, isSparse = args.num_experts > 0): Layer {
  if (!isSparse) return new GatedMLP(args.hidden_size, args.intermediate_size);
  return new SharedExpertMLP({
    dims: args.hidden_size,
    hiddenDims: args.moe_intermediate_size,
    sharedDims: args.shared_expert_intermediate_size,
    experts: args.num_experts,
    expertsPerToken: args.num_experts_per_tok,
    normalize: args.norm_topk_prob,
  });
}

type HybridCache = KeyValueCache | ArraysCache;

/** Norms that the original checkpoints save as their distance from one. */
const zeroCentred = /(^model\.norm|\.(input_layernorm|post_attention_layernorm|q_norm|k_norm))\.weight$/;

const isTurned = (name: string, { shape }: Tensor) => name.endsWith("conv1d.weight") && shape.at(-1) !== 1;

/** Whether a checkpoint is an original one: its convolutions tell. */
const hasOriginalNorms = (weights: ReadonlyMap<string, Tensor>) =>
  [...weights].some(([name, weight]) => isTurned(name, weight));

export interface HybridParts {
  delta?: () => DeltaLayer;
  mlp?: (index: number) => Layer;
}

/** Layers of attention and of the delta rule. */
export class HybridLM extends CausalLM<HybridCache> {
  readonly experts: number;

  constructor(args: TextArgs, parts: HybridParts = {}) {
    const { delta = () => new GatedDeltaNet(deltaSizes(args)), mlp = () => feedForward(args) } = parts;
    super(args, (index): DecoderLayer<HybridCache> => {
      const type = args.layer_types?.[index];
      const attends = type ? type === "full_attention" : (index + 1) % args.full_attention_interval === 0;
      return attends
        ? new llama.Block(new GatedAttention(args), mlp(index), args)
        : new DeltaBlock(delta(), mlp(index), args);
    });
    this.experts = args.num_experts;
  }

  /**
   * Original checkpoints have convolutions as (C, 1, K) and norms less one; both become as ours. Experts that stand one by one
   * are stacked. Draft layers go.
   */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const isOriginal = hasOriginalNorms(weights);
    const entries = [...super.sanitize(weights)].filter(([name]) => !name.includes("mtp."));
    const changed = entries.map(([name, weight]): [string, Tensor] => {
      if (isTurned(name, weight)) return [name, mx.moveaxis(weight, 2, 1)];
      return [name, isOriginal && zeroCentred.test(name) ? weight.add(1) : weight];
    });
    const sanitized = new Map(changed);
    for (const layer of this.layers.keys()) {
      const mlp = `model.layers.${layer}.mlp`;
      stackExperts(sanitized, { count: this.experts, from: `${mlp}.experts`, to: `${mlp}.switch_mlp` });
    }
    return sanitized;
  }
}

/** Draft layers with attention, which share what brings them their input, and the last norm. */
class HybridHead extends DraftHead {
  fc: Layer;
  layers: DecoderLayer[];
  norm: RMSNorm;
  pre_fc_norm_embedding: RMSNorm;
  pre_fc_norm_hidden: RMSNorm;

  constructor(trunk: Trunk, args: TextArgs, depth: number) {
    super(trunk);
    const { hidden_size: D, rms_norm_eps: eps } = args;
    this.fc = new Linear(2 * D, D, { bias: false });
    this.layers = Array.from(
      { length: depth },
      () => new llama.Block(new GatedAttention(args), feedForward(args), args),
    );
    this.norm = new RMSNorm(D, eps);
    this.pre_fc_norm_embedding = new RMSNorm(D, eps);
    this.pre_fc_norm_hidden = new RMSNorm(D, eps);
  }

  get depth(): number {
    return this.layers.length;
  }

  protected parts(index: number): DraftParts {
    return {
      embeddingNorm: this.pre_fc_norm_embedding,
      hiddenNorm: this.pre_fc_norm_hidden,
      projection: this.fc,
      blocks: [this.layers[index] as DecoderLayer<Cache>],
      lastNorm: this.norm,
    };
  }
}

/** Experts one by one or as two tensors, and norms less one, become as ours. */
export const mtp: MtpFacts = {
  sanitize(weights, { num_experts: count }: TextArgs) {
    const isOriginal = hasOriginalNorms(weights);
    const found = splitGates(draftTensors(weights));
    for (const index of Array.from({ length: depthOf(found) }).keys()) {
      const mlp = `layers.${index}.mlp`;
      stackExperts(found, { count, from: `${mlp}.experts`, to: `${mlp}.switch_mlp` });
    }
    const isNorm = (name: string) => /norm[a-z_]*\.weight$/.test(name);
    return new Map([...found].map(([name, x]) => [name, isOriginal && isNorm(name) ? x.add(1) : x]));
  },
  head: (trunk, args: TextArgs, depth) => new HybridHead(trunk, args, depth),
};

/** Splits `gate_up_proj` (E, 2 N, K), and names the stacked experts as the layers that take them. */
export function splitGates(weights: ReadonlyMap<string, Tensor>): Map<string, Tensor> {
  const split = new Map<string, Tensor>();
  for (const [name, weight] of weights) {
    const [path, part] = name.split(".experts.") as [string, string?];
    const to = `${path}.switch_mlp`;
    if (part === "gate_up_proj") {
      const [gate, up] = weight.split(2, -2) as [Tensor, Tensor];
      split.set(`${to}.gate_proj.weight`, gate).set(`${to}.up_proj.weight`, up);
    } else if (part === "down_proj") split.set(`${to}.down_proj.weight`, weight);
    else split.set(name, weight);
  }
  return split;
}

export class Model extends NestedLM {
  constructor(args: TextArgs) {
    super(new HybridLM(args));
  }
}

/** Routers keep 8 bits: a wrong choice of experts costs more than their few weights. */
export function quantize(path: string): { groupSize: number; bits: number } | undefined {
  return /(mlp\.gate|shared_expert_gate)$/.test(path) ? { groupSize: 64, bits: 8 } : undefined;
}

/** Decay rates stay in float32. */
export const keepsDtype = (path: string): boolean => path.endsWith("A_log");

const deltaInputs = ["in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a"];

export const joins: Joins = [...usualJoins, deltaInputs];

const { noClip, groups } = denseAwq();

export const awq: AwqFacts = {
  inner: "language_model",
  noClip,
  groups: [
    { before: "input_layernorm", layers: deltaInputs.map((name) => `linear_attn.${name}`), part: "linear_attn" },
    ...groups,
  ],
};

export const gguf = qwen35("qwen35");
