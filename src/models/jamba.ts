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
import { blockAwq } from "./awq-facts";
import { decoder } from "./gguf/decoder";
import { u32 } from "./gguf/facts";
import { expertLayer, plainLayer, TensorNames } from "./gguf/names";
import { scanChanges, scanNames } from "./gguf/state-space";
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

const attendsAt = (args: Args, index: number): boolean =>
  args.layers_block_type
    ? args.layers_block_type[index] === "attention"
    : index % args.attn_layer_period === args.attn_layer_offset;

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
    const { hidden_size: D, rms_norm_eps: eps } = args;
    const attends = attendsAt(args, index);
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

const { layer, parameters } = scanNames("mamba");

/** The distance of some layers, and the first of them: Jamba's way to say which they are. */
function periodOf(is: readonly boolean[]): { offset: number; period: number } {
  const offset = Math.max(is.indexOf(true), 0);
  const next = is.indexOf(true, offset + 1);
  return { offset, period: next < 0 ? Math.max(is.length, 1) : next - offset };
}

export const gguf = decoder("jamba", {
  names: new TensorNames(
    {
      ...plainLayer,
      ...layer,
      ...expertLayer("feed_forward"),
      ffn_gate_inp: "feed_forward.router",
      ssm_dt_norm: "mamba.dt_layernorm",
      ssm_b_norm: "mamba.b_layernorm",
      ssm_c_norm: "mamba.c_layernorm",
      ffn_norm: "pre_ff_layernorm",
      ffn_gate: "feed_forward.gate_proj",
      ffn_up: "feed_forward.up_proj",
      ffn_down: "feed_forward.down_proj",
    },
    { parameters, outer: { output_norm: "model.final_layernorm" } },
  ),
  changes: () => scanChanges("mamba"),
  stretches: false,
  integers: { expert_count: "num_experts", expert_used_count: "num_experts_per_tok" },
  only: { mamba_proj_bias: false, mamba_conv_bias: true },
  read(file, { hidden_size: width, num_hidden_layers: count }) {
    const heads = file.list("attention.head_count_kv") ?? [];
    const layers = Array.from({ length: count as number }, (_, index) => index);
    const attends = layers.map((index) => (heads[index] ?? 0) > 0);
    const attention = periodOf(attends);
    const sparse = periodOf(layers.map((index) => file.shape(`blk.${index}.ffn_gate_inp.weight`) !== undefined));
    return {
      layers_block_type: attends.map((is) => (is ? "attention" : "mamba")),
      attn_layer_offset: attention.offset,
      attn_layer_period: attention.period,
      expert_layer_offset: sparse.offset,
      expert_layer_period: sparse.period,
      mamba_d_conv: file.need("ssm.conv_kernel"),
      mamba_d_state: file.need("ssm.state_size"),
      mamba_expand: file.need("ssm.inner_size") / (width as number),
      mamba_dt_rank: file.need("ssm.time_step_rank"),
    };
  },
  write(settings) {
    const args = settings as unknown as Args;
    const { hidden_size: width, mamba_dt_rank: rank } = args;
    const heads = Array.from({ length: args.num_hidden_layers }, (_, index) =>
      attendsAt(args, index) ? args.num_key_value_heads : 0,
    );
    return {
      "attention.head_count_kv": u32(heads),
      "ssm.conv_kernel": u32(args.mamba_d_conv),
      "ssm.inner_size": u32(args.mamba_expand * width),
      "ssm.state_size": u32(args.mamba_d_state),
      "ssm.time_step_rank": u32(rank === "auto" ? Math.ceil(width / 16) : rank),
    };
  },
});

export const awq = blockAwq({
  attention: ["self_attn", "mamba"],
  mlp: "feed_forward",
  mlpNorm: "pre_ff_layernorm",
  router: "router",
});
