/** Jamba: Mamba mixers, every few layers attention without positions, and experts in place of every few layers' MLP. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  ArraysCache,
  type DecoderLayer,
  fullAttention,
  GatedMLP,
  highestOfSoftmax,
  type KeyValueCache,
  type Layer,
  Linear,
  MambaMixer,
  type Mask,
  type MaskRule,
  Module,
  mixExperts,
  type Residual,
  RMSNorm,
  recurrent,
  type Selection,
  SwitchGLU,
  stackExperts,
  turnConvolutions,
} from "../nn";
import { checkHeads, size, trunkFields } from "./args";
import { CausalLM } from "./language-model";
import { Attention } from "./llama";

const offset = z.int().nonnegative();

export const Args = z
  .object({
    ...trunkFields,
    intermediate_size: size,
    num_attention_heads: size,
    num_key_value_heads: size,
    attn_layer_offset: offset,
    attn_layer_period: size,
    expert_layer_offset: offset,
    expert_layer_period: size,
    mamba_d_conv: size,
    mamba_d_state: size,
    mamba_expand: size,
    num_experts: size,
    num_experts_per_tok: size,
    mamba_dt_rank: z.union([size, z.literal("auto")]).default("auto"),
    mamba_proj_bias: z.boolean().default(false),
    mamba_conv_bias: z.boolean().default(true),
    layers_block_type: z.array(z.enum(["attention", "mamba"])).nullish(),
  })
  .superRefine(checkHeads)
  .superRefine((args, context) => {
    const problem = (field: string, message: string) => context.addIssue({ code: "custom", path: [field], message });
    const { layers_block_type: types, num_hidden_layers: count, num_experts: experts } = args;
    if (types && types.length !== count) {
      problem("layers_block_type", `has ${types.length} entries, but "num_hidden_layers" is ${count}`);
    }
    if (experts > 1 && args.num_experts_per_tok > experts) {
      problem("num_experts_per_tok", `is ${args.num_experts_per_tok}, but "num_experts" is ${experts}`);
    }
  });

type Args = z.infer<typeof Args>;

class Mixer extends MambaMixer {
  dt_layernorm: RMSNorm;
  b_layernorm: RMSNorm;
  c_layernorm: RMSNorm;

  constructor(args: Args) {
    const { hidden_size: dims, mamba_d_state: stateSize, mamba_dt_rank: rank, rms_norm_eps: eps } = args;
    const stepRank = rank === "auto" ? Math.ceil(dims / 16) : rank;
    super({
      dims,
      channels: args.mamba_expand * dims,
      stateSize,
      kernelSize: args.mamba_d_conv,
      stepRank,
      bias: args.mamba_proj_bias,
      convBias: args.mamba_conv_bias,
    });
    this.dt_layernorm = new RMSNorm(stepRank, eps);
    this.b_layernorm = new RMSNorm(stateSize, eps);
    this.c_layernorm = new RMSNorm(stateSize, eps);
  }

  protected override normalized([steps, B, C]: Selection): Selection {
    return [this.dt_layernorm.forward(steps), this.b_layernorm.forward(B), this.c_layernorm.forward(C)];
  }
}

class MoE extends Module {
  router: Layer;
  switch_mlp: SwitchGLU;
  readonly expertsPerToken: number;

  constructor({ hidden_size, intermediate_size, num_experts, num_experts_per_tok }: Args) {
    super();
    this.router = new Linear(hidden_size, num_experts, { bias: false });
    this.switch_mlp = new SwitchGLU(hidden_size, intermediate_size, num_experts);
    this.expertsPerToken = num_experts_per_tok;
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    const routing = highestOfSoftmax(this.router.forward(x), this.expertsPerToken, { normalize: false });
    return mixExperts(x, this.switch_mlp, routing);
  }
}

type HybridCache = KeyValueCache | ArraysCache;

class Block extends Module implements DecoderLayer<HybridCache> {
  self_attn?: Attention;
  mamba?: Mixer;
  feed_forward: Layer;
  input_layernorm: RMSNorm;
  pre_ff_layernorm: RMSNorm;
  readonly mask: MaskRule<never>;
  readonly makeCache?: () => HybridCache;

  constructor(args: Args, index: number) {
    super();
    const { hidden_size: D, rms_norm_eps: eps, layers_block_type: types } = args;
    const attends = types ? types[index] === "attention" : index % args.attn_layer_period === args.attn_layer_offset;
    if (attends) this.self_attn = new Attention({ ...args, ...plain }, { rope: null });
    else this.mamba = new Mixer(args);
    const isSparse = args.num_experts > 1 && index % args.expert_layer_period === args.expert_layer_offset;
    this.feed_forward = isSparse ? new MoE(args) : new GatedMLP(D, args.intermediate_size);
    this.input_layernorm = new RMSNorm(D, eps);
    this.pre_ff_layernorm = new RMSNorm(D, eps);
    this.mask = attends ? fullAttention : recurrent;
    if (!attends) this.makeCache = () => new ArraysCache(2);
  }

  forward(x: Residual, mask: Mask, cache?: HybridCache): Residual {
    const branch = x.branch(this.input_layernorm);
    const mixed = this.mamba
      ? this.mamba.forward(branch, mask as Tensor | null, cache as ArraysCache | undefined)
      : this.self_attn!.forward(branch, mask, cache as KeyValueCache | undefined);
    const h = x.plus(mixed);
    return h.plus(this.feed_forward.forward(h.branch(this.pre_ff_layernorm)));
  }
}

const plain = { attention_bias: false, rope_traditional: false };

export class Model extends CausalLM<HybridCache> {
  readonly experts: number;

  constructor(args: Args) {
    super(args, (index) => new Block(args, index), { names: { norm: "final_layernorm" } });
    this.experts = args.num_experts;
  }

  /** Turns convolutions and stacks the experts. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = super.sanitize(weights);
    turnConvolutions(sanitized);
    for (const index of this.layers.keys()) {
      const path = `model.layers.${index}.feed_forward`;
      stackExperts(sanitized, { count: this.experts, from: `${path}.experts`, to: `${path}.switch_mlp` });
    }
    return sanitized;
  }
}

/** The router decides which experts are read: it stays at 8 bits. */
export const quantize = (path: string) => (path.endsWith("router") ? { groupSize: 64, bits: 8 } : undefined);
