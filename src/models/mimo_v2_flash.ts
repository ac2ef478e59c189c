/**
 * MiMo V2 Flash: most layers attend to a short window, with a number and width of heads and a rotation of their own and with
 * sinks; values are narrower than keys; experts as in DeepSeek V3.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  attention,
  divideHeads,
  GatedMLP,
  GroupedRouter,
  initializeRope,
  joinHeads,
  type KeyValueCache,
  type Layer,
  Linear,
  type Mask,
  Module,
  mixExperts,
  parameter,
  project,
  type RotaryEmbedding,
  type Split,
  SwitchGLU,
  slidingWindow,
  splitHeads,
  stackExperts,
} from "../nn";
import { size } from "./args";
import { blockAwq } from "./awq-facts";
import { decoder, precise, routedExperts } from "./gguf/decoder";
import { gating } from "./gguf/deepseek2";
import { f32, flag, u32 } from "./gguf/facts";
import { expertLayer, plainLayer, sharedExpert, TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { CausalLM } from "./language-model";
import { Block } from "./llama";
import { draftTensors, type MtpFacts } from "./mtp/facts";
import { LayeredHead, usualNames } from "./mtp/layered-head";

const flags = z.array(z.union([z.literal(0), z.literal(1)]));

export const Args = z
  .object({
    vocab_size: size,
    hidden_size: size,
    num_hidden_layers: size,
    intermediate_size: size,
    moe_intermediate_size: size,
    /** For each layer 1 where it attends to a window. */
    hybrid_layer_pattern: flags,
    /** For each layer 1 where its feed-forward block is experts. */
    moe_layer_freq: flags,
    add_swa_attention_sink_bias: z.boolean(),
    add_full_attention_sink_bias: z.boolean(),
    /** How many tokens before its own a token attends to. */
    sliding_window_size: size,
    num_attention_heads: size,
    num_key_value_heads: size,
    head_dim: size,
    v_head_dim: size,
    swa_num_attention_heads: size,
    swa_num_key_value_heads: size,
    swa_head_dim: size,
    swa_v_head_dim: size,
    rope_theta: z.number().positive(),
    swa_rope_theta: z.number().positive(),
    partial_rotary_factor: z.number().positive().max(1),
    attention_value_scale: z.number().nullish(),
    layernorm_epsilon: z.number().positive(),
    n_routed_experts: size.nullish(),
    n_shared_experts: size.nullish(),
    num_experts_per_tok: size,
    n_group: size,
    topk_group: size,
    norm_topk_prob: z.boolean(),
    routed_scaling_factor: z.number().nullish(),
    topk_method: z.literal("noaux_tc"),
    scoring_func: z.literal("sigmoid"),
  })
  .superRefine((args, context) => {
    const problem = (field: string, message: string) => context.addIssue({ code: "custom", path: [field], message });
    const { num_hidden_layers: count, n_routed_experts: experts } = args;
    for (const field of ["hybrid_layer_pattern", "moe_layer_freq"] as const) {
      const { length } = args[field];
      if (length !== count) problem(field, `has ${length} entries, but "num_hidden_layers" is ${count}`);
    }
    for (const prefix of ["", "swa_"] as const) {
      const [heads, kvHeads] = [args[`${prefix}num_attention_heads`], args[`${prefix}num_key_value_heads`]];
      const field = `${prefix}num_key_value_heads`;
      if (heads % kvHeads !== 0) {
        problem(field, `is ${kvHeads}, but "${prefix}num_attention_heads" (${heads}) must be a multiple of it`);
      }
    }
    if (!args.moe_layer_freq.includes(1)) return;
    if (!experts) problem("n_routed_experts", "is missing, but there are layers of experts");
    else if (args.num_experts_per_tok > experts) {
      problem("num_experts_per_tok", `is ${args.num_experts_per_tok}, but "n_routed_experts" is ${experts}`);
    }
  });

type Args = z.infer<typeof Args>;

class Attention extends Module {
  q_proj: Layer;
  k_proj: Layer;
  v_proj: Layer;
  o_proj: Layer;
  /** A score of each head that attends to nothing, (H). */
  attention_sink_bias?: Tensor;
  readonly rope: RotaryEmbedding;
  readonly heads: number;
  readonly kvHeads: number;
  readonly scale: number;
  /** Factor on the values. */
  readonly valueScale: number | null;

  constructor(args: Args, slides: boolean) {
    super();
    const { hidden_size: D } = args;
    const heads = slides ? args.swa_num_attention_heads : args.num_attention_heads;
    const kvHeads = slides ? args.swa_num_key_value_heads : args.num_key_value_heads;
    const headDim = slides ? args.swa_head_dim : args.head_dim;
    const valueDim = slides ? args.swa_v_head_dim : args.v_head_dim;
    this.q_proj = new Linear(D, heads * headDim, { bias: false });
    this.k_proj = new Linear(D, kvHeads * headDim, { bias: false });
    this.v_proj = new Linear(D, kvHeads * valueDim, { bias: false });
    this.o_proj = new Linear(heads * valueDim, D, { bias: false });
    const hasSinks = slides ? args.add_swa_attention_sink_bias : args.add_full_attention_sink_bias;
    if (hasSinks) this.attention_sink_bias = parameter(mx.ones([heads]));
    this.rope = initializeRope({
      dims: Math.trunc(args.partial_rotary_factor * headDim),
      base: slides ? args.swa_rope_theta : args.rope_theta,
    });
    this.heads = heads;
    this.kvHeads = kvHeads;
    this.scale = headDim ** -0.5;
    this.valueScale = args.attention_value_scale ?? null;
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const [queries, keys, values] = project(x, [this.q_proj, this.k_proj, this.v_proj]) as [Tensor, Tensor, Tensor];
    const q = this.rope.forward(splitHeads(queries, this.heads), cache?.offset);
    const k = this.rope.forward(splitHeads(keys, this.kvHeads), cache?.offset);
    const plain = splitHeads(values, this.kvHeads);
    const v = this.valueScale === null ? plain : plain.multiply(this.valueScale);
    const sinks = this.attention_sink_bias;
    return this.o_proj.forward(joinHeads(attention(q, k, v, { scale: this.scale, mask, cache, sinks })));
  }

  shard(split: Split): void {
    divideHeads(this, split, { tensors: this.attention_sink_bias ? ["attention_sink_bias"] : [] });
  }
}

class MoE extends Module {
  switch_mlp: SwitchGLU;
  gate: GroupedRouter;
  shared_experts?: GatedMLP;

  constructor(args: Args) {
    super();
    const { hidden_size: dims, moe_intermediate_size: hidden, n_shared_experts: shared } = args;
    const experts = args.n_routed_experts!;
    this.switch_mlp = new SwitchGLU(dims, hidden, experts);
    this.gate = new GroupedRouter({
      dims,
      experts,
      expertsPerToken: args.num_experts_per_tok,
      groups: args.n_group,
      groupsPerToken: args.topk_group,
      normalize: args.norm_topk_prob,
      scale: args.routed_scaling_factor ?? 1,
    });
    if (shared) this.shared_experts = new GatedMLP(dims, hidden * shared);
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    const mixed = mixExperts(x, this.switch_mlp, this.gate.forward(x)).astype(x.dtype);
    return this.shared_experts ? mixed.add(this.shared_experts.forward(x)) : mixed;
  }
}

const normsOf = ({ hidden_size, layernorm_epsilon }: Args) => ({ hidden_size, rms_norm_eps: layernorm_epsilon });

function block(args: Args, slides: boolean, isSparse: boolean): Block {
  const mlp = isSparse ? new MoE(args) : new GatedMLP(args.hidden_size, args.intermediate_size);
  // The window that it was trained with has so many tokens before a token's own.
  const mask = slides ? slidingWindow(args.sliding_window_size + 1) : undefined;
  return new Block(new Attention(args, slides), mlp, normsOf(args), mask);
}

export class Model extends CausalLM {
  readonly experts: number;

  constructor(args: Args) {
    const trunk = { ...args, ...normsOf(args), tie_word_embeddings: false };
    super(trunk, (index) => block(args, args.hybrid_layer_pattern[index] === 1, args.moe_layer_freq[index] === 1));
    this.experts = args.n_routed_experts ?? 0;
  }

  /** Stacks the experts, and drops the layers that predict further tokens. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = super.sanitize(new Map([...weights].filter(([name]) => !name.startsWith("model.mtp"))));
    for (const index of this.layers.keys()) {
      const mlp = `model.layers.${index}.mlp`;
      stackExperts(sanitized, { count: this.experts, from: `${mlp}.experts`, to: `${mlp}.switch_mlp` });
    }
    return sanitized;
  }
}

/** Draft layers are dense and slide. All take the model's hidden states, ahead of its last norm. */
export const mtp: MtpFacts = {
  sanitize(weights) {
    const renamed = [...draftTensors(weights)].map(([name, weight]) => [
      name.replace(".pre_mlp_layernorm.", ".post_attention_layernorm."),
      weight,
    ]);
    return new Map(renamed as [string, Tensor][]);
  },
  head(trunk, args: Args, depth) {
    const blocks = Array.from({ length: depth }, () => block(args, true, false));
    const names = { ...usualNames, last: "final_layernorm" };
    return new LayeredHead(trunk, blocks, normsOf(args), { names, takesStream: true, takesModels: true });
  },
};

/** The bias of the routing is learned in float32, and small. */
export const keepsDtype = (path: string) => path.endsWith("e_score_correction_bias");

export const awq = blockAwq();

/** What a configuration and a file say of each layer, in the order of layers. */
const eachLayer = <T>(layers: number, of: (index: number) => T): T[] => Array.from({ length: layers }, (_, i) => of(i));

/** @param prefix what stands before the names of the checkpoint */
export const ggufFacts = (prefix = "") =>
  decoder("mimo2", {
    names: new TensorNames(
      { ...plainLayer, ...expertLayer("mlp"), ...sharedExpert("mlp.shared_experts") },
      {
        parameters: {
          "exp_probs_b.bias": "mlp.gate.e_score_correction_bias",
          "attn_sinks.weight": "self_attn.attention_sink_bias",
        },
        prefix,
      },
    ),
    epsilon: ["attention.layer_norm_rms_epsilon", "layernorm_epsilon"],
    ropeBase: 5_000_000,
    turning: ({ headDim, ...settings }) => Math.trunc((settings as unknown as Args).partial_rotary_factor * headDim),
    hasWindows: true,
    integers: {
      ...routedExperts,
    },
    floats: { expert_weights_scale: "routed_scaling_factor", "attention.value_scale": "attention_value_scale" },
    flags: { expert_weights_norm: "norm_topk_prob" },
    only: { topk_method: "noaux_tc", scoring_func: "sigmoid", n_group: 1, topk_group: 1 },
    read(file, common) {
      const layers = common.num_hidden_layers as number;
      const has = (tensor: string) => (i: number) => (file.shape(`blk.${i}.${tensor}`) ? 1 : 0);
      const slides = file.list("attention.sliding_window_pattern") ?? file.wrong("it does not say which layers slide");
      const pattern = eachLayer(layers, (i) => (slides[i] ? 1 : 0));
      const first = (list: readonly number[] | undefined, kind: 0 | 1) =>
        list?.[list.length === 1 ? 0 : Math.max(0, pattern.indexOf(kind))];
      const [heads, kvHeads] = [file.list("attention.head_count"), file.list("attention.head_count_kv")];
      const values = file.need("attention.value_length");
      const sinks = eachLayer(layers, has("attn_sinks.weight"));
      return {
        // Files count the token itself.
        sliding_window_size: file.need("attention.sliding_window") - 1,
        hybrid_layer_pattern: pattern,
        moe_layer_freq: eachLayer(layers, has("ffn_gate_inp.weight")),
        num_attention_heads: first(heads, 0),
        num_key_value_heads: first(kvHeads, 0),
        swa_num_attention_heads: first(heads, 1),
        swa_num_key_value_heads: first(kvHeads, 1),
        v_head_dim: values,
        swa_head_dim: common.head_dim,
        swa_v_head_dim: values,
        swa_rope_theta: precise(file.number("rope.freq_base_swa") ?? 10_000),
        add_swa_attention_sink_bias: sinks.some((sink, i) => sink === 1 && pattern[i] === 1),
        add_full_attention_sink_bias: sinks.some((sink, i) => sink === 1 && pattern[i] === 0),
      };
    },
    write(settings) {
      const args = settings as unknown as Args;
      const { hybrid_layer_pattern: pattern, v_head_dim: values } = args;
      if (args.swa_head_dim !== args.head_dim) noPlace('a "swa_head_dim" of its own');
      if (args.swa_v_head_dim !== values) noPlace('a "swa_v_head_dim" of its own');
      const ofKind = (full: number, sliding: number) => u32(pattern.map((slides) => (slides ? sliding : full)));
      return {
        "attention.head_count": ofKind(args.num_attention_heads, args.swa_num_attention_heads),
        "attention.head_count_kv": ofKind(args.num_key_value_heads, args.swa_num_key_value_heads),
        "attention.value_length": u32(values),
        "attention.sliding_window": u32(args.sliding_window_size + 1),
        "attention.sliding_window_pattern": flag(pattern.map((slides) => slides === 1)),
        "rope.freq_base_swa": f32(args.swa_rope_theta),
        expert_gating_func: u32(gating.sigmoid),
      };
    },
  });

export const gguf = ggufFacts();
