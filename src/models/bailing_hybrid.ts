/**
 * Ling and Ring 2.5 (Bailing): lightning attention, whose state fades at a fixed rate of each head, every few layers latent
 * attention, and experts in groups beside shared ones. Qin et al. 2024, arXiv:2401.04658.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  ArraysCache,
  type DecoderLayer,
  decayingAttention,
  type ForwardOptions,
  fullAttention,
  fullAttentionArray,
  GatedMLP,
  GroupedRMSNorm,
  initializeRope,
  joinHeads,
  type KeyValueCache,
  type LatentAttentionSizes,
  LatentInputs,
  type Layer,
  Linear,
  latentJoins,
  layerMasks,
  type Mask,
  type MaskRule,
  Module,
  mixExperts,
  parameter,
  Residual,
  RMSNorm,
  RopeScaling,
  type RotaryEmbedding,
  type Routing,
  recurrent,
  routeWithinGroups,
  type Split,
  SwitchGLU,
  splitHeads,
  splitKeysValues,
  stackExperts,
  usualJoins,
  yarnTemperature,
} from "../nn";
import { count, size, trunkFields } from "./args";
import { blockAwq } from "./awq-facts";
import { attendsToAll } from "./bailing_moe_v3";
import { CausalLM, type TrunkArgs } from "./language-model";
import type { SelfAttention } from "./llama";
import { withoutDraftLayers } from "./mtp/draft-layers";
import { behind, depthOf, draftTensors, type MtpFacts } from "./mtp/facts";
import { finalNames, LayeredHead } from "./mtp/layered-head";

export const Args = z
  .object({
    ...trunkFields,
    tie_word_embeddings: z.boolean().default(false),
    intermediate_size: size,
    moe_intermediate_size: size,
    moe_shared_expert_intermediate_size: size.nullish(),
    num_attention_heads: size,
    num_experts: size.nullable(),
    num_experts_per_tok: size,
    num_shared_experts: count,
    n_group: size,
    topk_group: size,
    first_k_dense_replace: count,
    /** Every how many layers one is latent attention. */
    layer_group_size: size,
    group_norm_size: size,
    rope_theta: z.number().positive(),
    rope_scaling: RopeScaling.nullish(),
    rope_interleave: z.boolean().default(true),
    partial_rotary_factor: z.number().positive().max(1).default(0.5),
    max_position_embeddings: size,
    routed_scaling_factor: z.number(),
    head_dim: size,
    kv_lora_rank: size,
    q_lora_rank: size.nullish(),
    qk_rope_head_dim: size,
    qk_nope_head_dim: size,
    v_head_dim: size,
    use_qkv_bias: z.boolean().default(false),
    use_bias: z.boolean().default(false),
    use_qk_norm: z.boolean().default(true),
    score_function: z.enum(["sigmoid", "softmax"]).default("sigmoid"),
    norm_topk_prob: z.boolean().default(true),
    moe_router_enable_expert_bias: z.boolean().default(true),
  })
  .superRefine(({ num_experts: experts, num_experts_per_tok: used, n_group: groups, topk_group }, context) => {
    const problem = (field: string, message: string) => context.addIssue({ code: "custom", path: [field], message });
    if (experts === null) return;
    if (used > experts) problem("num_experts_per_tok", `is ${used}, but "num_experts" is ${experts}`);
    if (experts % groups !== 0 || (groups > 1 && experts / groups < 2)) {
      problem("n_group", `is ${groups}, but must divide "num_experts" (${experts}) into groups of 2 or more`);
    }
    if (topk_group > groups) problem("topk_group", `is ${topk_group}, but "n_group" is ${groups}`);
  });

type Args = z.infer<typeof Args>;

/** ALiBi's slopes, 2^(−8/n) to 2^−8 for n heads; others lie between where n is no power of two. arXiv:2108.12409. */
function slopes(heads: number): number[] {
  const power = 2 ** Math.floor(Math.log2(heads));
  const ofPower = (n: number) => Array.from({ length: n }, (_, i) => 2 ** ((-8 / n) * (i + 1)));
  const between = ofPower(2 * power).filter((_, i) => i % 2 === 0);
  return [...ofPower(power), ...between.slice(0, heads - power)];
}

export type LightningArgs = Pick<
  Args,
  | "hidden_size"
  | "num_attention_heads"
  | "head_dim"
  | "rms_norm_eps"
  | "use_qkv_bias"
  | "use_bias"
  | "use_qk_norm"
  | "group_norm_size"
  | "partial_rotary_factor"
  | "rope_theta"
  | "rope_scaling"
  | "max_position_embeddings"
> & { rope_traditional?: boolean };

export class LightningAttention extends Module {
  query_key_value: Layer;
  dense: Layer;
  g_proj: Layer;
  g_norm: GroupedRMSNorm;
  key_layernorm?: RMSNorm;
  query_layernorm?: RMSNorm;
  readonly rope: RotaryEmbedding;
  /** The logarithm of what a token leaves of each head's state, (H). */
  readonly _decays: Tensor;
  readonly heads: number;
  readonly scale: number;

  /** @param share of ALiBi's slopes: later layers remember longer */
  constructor(args: LightningArgs, share: number) {
    super();
    const { hidden_size: D, num_attention_heads: heads, head_dim: headDim, rms_norm_eps: eps } = args;
    const inner = heads * headDim;
    this.query_key_value = new Linear(D, 3 * inner, { bias: args.use_qkv_bias });
    this.dense = new Linear(inner, D, { bias: args.use_bias });
    this.g_proj = new Linear(D, inner, { bias: false });
    this.g_norm = new GroupedRMSNorm(inner, eps, args.group_norm_size);
    if (args.use_qk_norm) {
      this.key_layernorm = new RMSNorm(headDim, eps);
      this.query_layernorm = new RMSNorm(headDim, eps);
    }
    this.rope = initializeRope({
      dims: Math.trunc(headDim * args.partial_rotary_factor),
      base: args.rope_theta,
      traditional: args.rope_traditional,
      scaling: args.rope_scaling,
      maxPositions: args.max_position_embeddings,
    });
    this._decays = parameter(mx.array(slopes(heads).map((slope) => -slope * share)));
    this.heads = heads;
    this.scale = headDim ** -0.5;
  }

  /** x (B, T, D), own (B, T): which tokens are a row's own, offset: the first token's position → (B, T, D) */
  forward(x: Tensor, own: Tensor | null, offset: number | Tensor, cache?: ArraysCache): Tensor {
    const [batch, length] = x.shape as [number, number, number];
    const [q, k, v] = splitHeads(this.query_key_value.forward(x), 3 * this.heads).split(3, 1) as Triple;
    const byToken = (heads: Tensor) => heads.transpose(0, 2, 1, 3).astype("float32");
    const queries = this.rope.forward(this.query_layernorm?.forward(q) ?? q, offset);
    const keys = this.rope.forward(this.key_layernorm?.forward(k) ?? k, offset);
    const decays = mx.broadcastTo(this._decays, [batch, length, this.heads]);
    const inputs = {
      entering: own ? mx.where(own.expandDims([-1, -2]), byToken(v), 0) : byToken(v),
      B: byToken(keys),
      C: byToken(queries).multiply(this.scale),
      decays: own ? mx.where(own.expandDims(-1), decays, 0) : decays,
    };
    const [y, state] = decayingAttention(inputs, cache?.get(0)?.swapaxes(-1, -2) ?? null);
    cache?.put(0, state.swapaxes(-1, -2));
    cache?.advance(length);
    const normed = this.g_norm.forward(y.astype(x.dtype).flatten(-2, -1));
    return this.dense.forward(normed.multiply(this.g_proj.forward(x).sigmoid()));
  }
}

type Triple = [Tensor, Tensor, Tensor];

const latentSizes = (args: Args): LatentAttentionSizes => ({
  dims: args.hidden_size,
  heads: args.num_attention_heads,
  queryRank: args.q_lora_rank ?? null,
  rank: args.kv_lora_rank,
  plainDims: args.qk_nope_head_dim,
  rotatedDims: args.qk_rope_head_dim,
  valueDims: args.v_head_dim,
  bias: args.use_qkv_bias,
  eps: args.rms_norm_eps,
});

class LatentAttention extends LatentInputs {
  dense: Layer;

  constructor(args: Args) {
    const sizes = latentSizes(args);
    const { rotatedDims: dims, plainDims, heads, valueDims, bias } = sizes;
    const { rope_scaling: scaling, rope_theta: base, max_position_embeddings: maxPositions } = args;
    const stretch = scaling?.mscale_all_dim ? yarnTemperature(scaling.factor ?? 1, scaling.mscale_all_dim) : 1;
    const rope = initializeRope({ dims, base, traditional: args.rope_interleave, scaling, maxPositions });
    super(sizes, rope, (plainDims + dims) ** -0.5 * stretch ** 2);
    this.dense = new Linear(heads * valueDims, args.hidden_size, { bias });
  }

  /** x (B, T, D), mask: an array or null → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    return this.dense.forward(joinHeads(this.heads(x, mask, cache)));
  }

  override shard(split: Split): void {
    super.shard(split, { output: "dense" });
  }
}

type ExpertArgs = Pick<
  Args,
  | "hidden_size"
  | "moe_intermediate_size"
  | "moe_shared_expert_intermediate_size"
  | "use_bias"
  | "num_shared_experts"
  | "num_experts_per_tok"
  | "n_group"
  | "topk_group"
  | "norm_topk_prob"
  | "routed_scaling_factor"
  | "score_function"
  | "moe_router_enable_expert_bias"
>;

class Router extends Module {
  gate_proj: Layer;
  /** Only takes part in the choice, (experts). */
  expert_bias?: Tensor;
  readonly #args: ExpertArgs;

  constructor(args: ExpertArgs, experts: number) {
    super();
    this.gate_proj = new Linear(args.hidden_size, experts, { bias: false });
    if (args.moe_router_enable_expert_bias) this.expert_bias = parameter(mx.zeros([experts]));
    this.#args = args;
  }

  forward(x: Tensor): Routing {
    const args = this.#args;
    const logits = this.gate_proj.forward(x).astype("float32");
    const scores = args.score_function === "sigmoid" ? logits.sigmoid() : mx.softmax(logits, { axis: -1 });
    const { experts, weights } = routeWithinGroups(scores, this.expert_bias ?? null, {
      expertsPerToken: args.num_experts_per_tok,
      groups: args.n_group,
      groupsPerToken: args.topk_group,
      normalize: args.norm_topk_prob,
      scale: args.routed_scaling_factor,
      unused: -Infinity,
    });
    return { experts, weights: weights.astype(x.dtype) };
  }
}

export class MoE extends Module {
  switch_mlp: SwitchGLU;
  gate: Router;
  shared_experts?: GatedMLP;

  constructor(args: ExpertArgs, experts: number) {
    super();
    const { hidden_size: D, moe_intermediate_size: hidden, use_bias: bias, num_shared_experts: shared } = args;
    this.switch_mlp = new SwitchGLU(D, hidden, experts, { bias });
    this.gate = new Router(args, experts);
    const sharedDims = args.moe_shared_expert_intermediate_size || hidden * shared;
    if (shared > 0) this.shared_experts = new GatedMLP(D, sharedDims, { bias });
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    const mixed = mixExperts(x, this.switch_mlp, this.gate.forward(x));
    return this.shared_experts ? mixed.add(this.shared_experts.forward(x)) : mixed;
  }
}

type HybridCache = KeyValueCache | ArraysCache;

/** Lightning attention, or attention of another kind, and a feed-forward block or experts. */
export class HybridBlock extends Module implements DecoderLayer<HybridCache> {
  input_layernorm: RMSNorm;
  post_attention_layernorm: RMSNorm;
  readonly mask: MaskRule<never>;
  readonly makeCache?: () => HybridCache;

  /** @param mask of attention of another kind */
  constructor(
    readonly attention: LightningAttention | SelfAttention,
    readonly mlp: Layer,
    { hidden_size: D, rms_norm_eps: eps }: { hidden_size: number; rms_norm_eps: number },
    mask: MaskRule = fullAttention,
  ) {
    super();
    this.input_layernorm = new RMSNorm(D, eps);
    this.post_attention_layernorm = new RMSNorm(D, eps);
    this.mask = this.isLightning ? recurrent : mask;
    if (this.isLightning) this.makeCache = () => new ArraysCache(1);
  }

  get isLightning(): boolean {
    return this.attention instanceof LightningAttention;
  }

  /** @param offset the first token's position, which a cache of states does not know */
  forward(x: Residual, mask: Mask, cache?: HybridCache, offset: number | Tensor = 0): Residual {
    const branch = x.branch(this.input_layernorm);
    const h = x.plus(
      this.attention instanceof LightningAttention
        ? this.attention.forward(branch, mask as Tensor | null, offset, cache as ArraysCache | undefined)
        : this.attention.forward(branch, mask, cache as KeyValueCache | undefined),
    );
    return h.plus(this.mlp.forward(h.branch(this.post_attention_layernorm)));
  }
}

/** A decoder of such blocks. */
export class HybridLM extends CausalLM<HybridCache> {
  constructor(args: TrunkArgs, block: (index: number) => HybridBlock) {
    super(args, block, { names: { embedding: "word_embeddings" } });
  }

  override hidden(inputs: Tensor, options?: ForwardOptions<HybridCache>): Tensor {
    return this.normed(this.stream(inputs, options));
  }

  override stream(inputs: Tensor, { cache, inputEmbeddings }: ForwardOptions<HybridCache> = {}): Residual {
    const blocks = this.layers as HybridBlock[];
    const x = inputEmbeddings ?? this.model.embedding.forward(inputs);
    const rules = blocks.map(({ mask }) => mask as MaskRule<HybridCache>);
    const masks = layerMasks(x, rules, cache);
    const rows = cache?.[blocks.findIndex(({ isLightning }) => !isLightning)] as KeyValueCache | undefined;
    const offset = rows?.offset ?? 0;
    return blocks.reduce((h, block, i) => block.forward(h, masks[i]!, cache?.[i], offset), new Residual(x));
  }
}

function block(args: Args, index: number): HybridBlock {
  const { hidden_size: D, num_hidden_layers: layers, num_experts: experts, use_bias: bias } = args;
  // Later layers remember longer.
  const share = 1 - index / Math.max(1, layers - 1) + 1e-5;
  const isLatent = attendsToAll(index, layers, args.layer_group_size);
  const attention = isLatent ? new LatentAttention(args) : new LightningAttention(args, share);
  const isSparse = experts !== null && index >= args.first_k_dense_replace;
  const mlp = isSparse ? new MoE(args, experts) : new GatedMLP(D, args.intermediate_size, { bias });
  return new HybridBlock(attention, mlp, args, fullAttentionArray);
}

export class Model extends HybridLM {
  readonly #args: Args;

  constructor(args: Args) {
    super(args, (index) => block(args, index));
    this.#args = args;
  }

  /** Stacks the experts, takes keys and values apart, and drops the layers that predict further tokens. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const { num_experts: experts } = this.#args;
    const own = withoutDraftLayers(super.sanitize(weights), this.layers.length);
    const sanitized = new Map([...own].map(([name, weight]) => [ownName(name), weight]));
    for (const index of this.layers.keys()) {
      const path = `model.layers.${index}`;
      if (experts) {
        stackExperts(sanitized, { count: experts, from: `${path}.mlp.experts`, to: `${path}.mlp.switch_mlp` });
      }
      splitKeysValues(sanitized, `${path}.attention`, latentSizes(this.#args));
    }
    return sanitized;
  }
}

/** Routers have a module of their own here. */
export const ownName = (name: string): string => name.replace(/mlp\.gate\.(weight|bias)$/, "mlp.gate.gate_proj.$1");

/** Draft layers see all. */
export const mtp: MtpFacts = {
  sanitize(weights, args: Args) {
    const drafts = draftTensors(weights, behind(args.num_hidden_layers));
    const found = new Map([...drafts].map(([name, weight]) => [ownName(name), weight]));
    for (let i = 0; i < depthOf(found); i++) {
      const mlp = `layers.${i}.mlp`;
      if (args.num_experts) {
        stackExperts(found, { count: args.num_experts, from: `${mlp}.experts`, to: `${mlp}.switch_mlp` });
      }
      splitKeysValues(found, `layers.${i}.attention`, latentSizes(args));
    }
    return found;
  },
  head(trunk, args: Args, depth) {
    const blocks = Array.from({ length: depth }, (_, i) => block(args, args.num_hidden_layers + i));
    return new LayeredHead(trunk, blocks, args, { names: finalNames });
  },
};

/** The router decides which experts are read: it stays at 8 bits. What unpacks keys and values stays as it is. */
export function quantize(path: string): { groupSize: number; bits: number } | "leave" | undefined {
  if (path.endsWith("mlp.gate.gate_proj")) return { groupSize: 64, bits: 8 };
  return /attention\.(embed_q|unembed_out)$/.test(path) ? "leave" : undefined;
}

/** The bias of the routing is learned in float32, and small. */
export const keepsDtype = (path: string) => path.endsWith("expert_bias");

export const joins = [...usualJoins, ...latentJoins];

export const awq = blockAwq({ attention: "attention", router: "gate.gate_proj" });
