/**
 * DeepSeek V2: latent attention whose keys and values are unpacked before they are cached, and experts by a softmax, in
 * groups where the configuration says so.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  attention,
  divideNamedHeads,
  highest,
  joinHeads,
  type KeyValueCache,
  type LatentAttentionSizes,
  type Layer,
  Linear,
  type Mask,
  Module,
  mixExperts,
  parameter,
  project,
  RMSNorm,
  type RotaryEmbedding,
  type Routing,
  type Split,
  SwitchGLU,
  splitHeads,
  stackExperts,
} from "../nn";
import { size } from "./args";
import { blockAwq } from "./awq-facts";
import * as deepseek from "./deepseek_v3";
import { latent } from "./gguf/deepseek2";
import { CausalLM } from "./language-model";
import { Block } from "./llama";

export const Args = z
  .object({
    ...deepseek.fields,
    topk_method: z.enum(["greedy", "gready", "group_limited_greedy"]).default("greedy"),
    scoring_func: z.literal("softmax").default("softmax"),
    n_group: size.nullish(),
    topk_group: size.nullish(),
  })
  .transform(({ n_group, topk_group, ...args }) => {
    const isGrouped = args.topk_method === "group_limited_greedy";
    return { ...args, n_group: isGrouped ? (n_group ?? 1) : 1, topk_group: isGrouped ? (topk_group ?? 1) : 1 };
  })
  .superRefine(deepseek.checkExperts);

type Args = z.infer<typeof Args>;

type ExpertArgs = Pick<
  Args,
  | "hidden_size"
  | "moe_intermediate_size"
  | "n_shared_experts"
  | "num_experts_per_tok"
  | "n_group"
  | "topk_group"
  | "routed_scaling_factor"
>;

/** Of the norms of latent vectors, whatever the configuration says of others. */
const latentEps = 1e-6;

/** With keys and values unpacked before they are cached. */
export class UnpackedLatentAttention extends Module {
  q_proj?: Layer;
  q_a_proj?: Layer;
  q_a_layernorm?: RMSNorm;
  q_b_proj?: Layer;
  kv_a_proj_with_mqa: Layer;
  kv_a_layernorm: RMSNorm;
  kv_b_proj: Layer;
  o_proj: Layer;
  readonly rope: RotaryEmbedding;
  readonly scale: number;
  readonly heads: number;
  readonly plainDims: number;
  readonly rank: number;

  constructor(
    { dims, heads, queryRank, rank, plainDims, rotatedDims, valueDims, bias, eps = latentEps }: LatentAttentionSizes,
    { rope, scale }: { rope: RotaryEmbedding; scale: number },
  ) {
    super();
    const queryDims = heads * (plainDims + rotatedDims);
    if (queryRank === null) {
      this.q_proj = new Linear(dims, queryDims, { bias: false });
    } else {
      this.q_a_proj = new Linear(dims, queryRank, { bias });
      this.q_a_layernorm = new RMSNorm(queryRank, eps);
      this.q_b_proj = new Linear(queryRank, queryDims, { bias: false });
    }
    this.kv_a_proj_with_mqa = new Linear(dims, rank + rotatedDims, { bias });
    this.kv_a_layernorm = new RMSNorm(rank, eps);
    this.kv_b_proj = new Linear(rank, heads * (plainDims + valueDims), { bias: false });
    this.o_proj = new Linear(heads * valueDims, dims, { bias });
    this.rope = rope;
    this.scale = scale;
    this.heads = heads;
    this.plainDims = plainDims;
    this.rank = rank;
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const { heads, plainDims } = this;
    const offset = cache?.offset ?? 0;
    const [queries, compressed] = this.#compress(x);
    const [plain, rotating] = splitHeads(queries, heads).split([plainDims], -1) as [Tensor, Tensor];
    const [latent, keyPart] = compressed.split([this.rank], -1) as [Tensor, Tensor];
    const unpacked = splitHeads(this.kv_b_proj.forward(this.kv_a_layernorm.forward(latent)), heads);
    const [plainKeys, values] = unpacked.split([plainDims], -1) as [Tensor, Tensor];
    const key = this.rope.forward(splitHeads(keyPart, 1), offset);
    const shared = mx.broadcastTo(key, [...plainKeys.shape.slice(0, 3), key.dim(-1)]);

    const beside = (a: Tensor, b: Tensor) => mx.concatenate([a, b], { axis: -1 });
    const q = beside(plain, this.rope.forward(rotating, offset));
    const out = attention(q, beside(plainKeys, shared), values, { scale: this.scale, mask, cache });
    return this.o_proj.forward(joinHeads(out));
  }

  /** The queries of all heads side by side, and latent vector and shared key side by side. */
  #compress(x: Tensor): [Tensor, Tensor] {
    if (this.q_proj) return [this.q_proj.forward(x), this.kv_a_proj_with_mqa.forward(x)];
    const [narrow, compressed] = project(x, [this.q_a_proj!, this.kv_a_proj_with_mqa]) as [Tensor, Tensor];
    return [this.q_b_proj!.forward(this.q_a_layernorm!.forward(narrow)), compressed];
  }

  shard(split: Split): void {
    const share = divideNamedHeads(this, split, {
      inputs: [this.q_proj ? "q_proj" : "q_b_proj", "kv_b_proj"],
      output: "o_proj",
    });
    if (share) Object.assign(this, { heads: share.heads });
  }
}

class Router extends Module {
  /** (experts, dims) */
  weight: Tensor;

  constructor(
    readonly args: ExpertArgs,
    experts: number,
  ) {
    super();
    this.weight = parameter(mx.zeros([experts, args.hidden_size]));
  }

  /** x (…, D) → the experts of each token and the weights of their results: (…, k) each. */
  forward(x: Tensor): Routing {
    const { num_experts_per_tok: k, routed_scaling_factor: scale } = this.args;
    const scores = withinGroups(mx.softmax(x.matmul(this.weight.T), { axis: -1, precise: true }), this.args);
    const experts = highest(scores, k);
    return { experts, weights: scores.takeAlongAxis(experts, -1).multiply(scale) };
  }
}

/** Scores (…, E) with those of the groups that a token does not use set to zero: a group counts by its best. */
function withinGroups(scores: Tensor, { n_group: groups, topk_group: used }: ExpertArgs): Tensor {
  if (used >= groups) return scores;
  const byGroup = scores.unflatten(-1, [groups, -1]);
  const best = byGroup.max({ axis: -1, keepdims: true });
  const order = mx.argpartition(best, groups - used - 1, { axis: -2 });
  const unused = mx.stopGradient(order.at(mx.ellipsis, mx.slice(0, groups - used), mx.slice()));
  return mx.putAlongAxis(byGroup, unused, 0, { axis: -2 }).flatten(-2, -1);
}

export class MoE extends Module {
  switch_mlp: SwitchGLU;
  gate: Router;
  shared_experts?: Layer;

  constructor(args: ExpertArgs, experts: number) {
    super();
    const { hidden_size: dims, moe_intermediate_size: hidden, n_shared_experts: shared } = args;
    this.switch_mlp = new SwitchGLU(dims, hidden, experts);
    this.gate = new Router(args, experts);
    if (shared) this.shared_experts = deepseek.mlpOf(dims, hidden * shared);
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    const mixed = mixExperts(x, this.switch_mlp, this.gate.forward(x));
    return this.shared_experts ? mixed.add(this.shared_experts.forward(x)) : mixed;
  }
}

export class Model extends CausalLM {
  readonly #experts: number;

  constructor(args: Args) {
    super({ ...args, tie_word_embeddings: false }, (index) => {
      const attention = new UnpackedLatentAttention(deepseek.attentionSizes(args), deepseek.latentScaling(args));
      const { n_routed_experts: experts, first_k_dense_replace: dense, moe_layer_freq: frequency } = args;
      const isSparse = index >= dense && index % frequency === 0;
      const mlp =
        experts && isSparse ? new MoE(args, experts) : deepseek.mlpOf(args.hidden_size, args.intermediate_size);
      return new Block(attention, mlp, args);
    });
    this.#experts = args.n_routed_experts ?? 0;
  }

  /** Stacks the experts, which the original checkpoints have one by one. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const count = this.#experts;
    const sanitized = super.sanitize(weights);
    for (const layer of this.layers.keys()) {
      const mlp = `model.layers.${layer}.mlp`;
      if (count) stackExperts(sanitized, { count, from: `${mlp}.experts`, to: `${mlp}.switch_mlp` });
    }
    return sanitized;
  }
}

export const { joins } = deepseek;

export const gguf = latent({ scores: "softmax", joins: true });

export const awq = blockAwq();
