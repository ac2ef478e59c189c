/**
 * Granite 4: Granite with Mamba-2 mixers in place of most layers' attention, and experts beside a shared MLP, or only an MLP
 * where the configuration counts no experts.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  ArraysCache,
  type DecoderLayer,
  fullAttention,
  GatedMLP,
  GatedRMSNorm,
  type KeyValueCache,
  type Layer,
  Linear,
  Mamba2Mixer,
  type Mask,
  type MaskRule,
  Module,
  type Residual,
  RMSNorm,
  recurrent,
  swiglu,
  turnConvolutions,
} from "../nn";
import { attentionFields, checkHeads, size, stepLimits, trunkFields } from "./args";
import { type AwqFacts, downGroup, gatedGroup } from "./awq-facts";
import { decoder, expertCounts } from "./gguf/decoder";
import { flag, u32 } from "./gguf/facts";
import { expertLayer, plainLayer, TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { checkLimits, mixerChanges, mixerNames, readMixer, writeMixer } from "./gguf/state-space";
import * as granite from "./granite";
import { checkExperts, MoE, splitExperts } from "./granitemoe";
import { CausalLM } from "./language-model";

/** Transformers 5 says `linear_attention` and `full_attention`. */
const LayerType = z
  .enum(["mamba", "attention", "linear_attention", "full_attention"])
  .transform((type) => (type === "mamba" || type === "linear_attention" ? "mamba" : "attention"));

export const Args = z
  .object({
    ...trunkFields,
    ...attentionFields,
    ...granite.factorFields,
    intermediate_size: size,
    num_key_value_heads: size,
    layer_types: z.array(LayerType),
    num_local_experts: z.int().nonnegative().nullish(),
    num_experts_per_tok: z.int().nonnegative().nullish(),
    shared_intermediate_size: size.nullish(),
    mamba_n_heads: size.nullish(),
    mamba_d_head: size.nullish(),
    mamba_proj_bias: z.boolean().nullish(),
    mamba_d_state: size.nullish(),
    mamba_d_conv: size.nullish(),
    mamba_n_groups: size.nullish(),
    mamba_conv_bias: z.boolean().nullish(),
    mlp_bias: z.boolean().default(false),
    position_embedding_type: z.string().nullish(),
    time_step_limit: stepLimits.nullish(),
  })
  .superRefine(checkHeads)
  .superRefine(checkExperts)
  .superRefine((args, context) => {
    const problem = (field: string, message: string) => context.addIssue({ code: "custom", path: [field], message });
    const { layer_types: types, num_hidden_layers: count, mamba_n_heads: heads, mamba_n_groups: groups } = args;
    if (types.length !== count) {
      problem("layer_types", `has ${types.length} entries, but "num_hidden_layers" is ${count}`);
    }
    if (args.num_local_experts && !args.shared_intermediate_size) {
      problem("shared_intermediate_size", `is missing, but "num_local_experts" is ${args.num_local_experts}`);
    }
    if (!types.includes("mamba")) return;
    const needed = ["mamba_n_heads", "mamba_d_head", "mamba_d_state", "mamba_d_conv", "mamba_n_groups"] as const;
    for (const field of needed) if (!args[field]) problem(field, `is missing, but there are layers of type "mamba"`);
    if (heads && groups && heads % groups !== 0) {
      problem("mamba_n_groups", `is ${groups}, but "mamba_n_heads" (${heads}) must be a multiple of it`);
    }
  });

type Args = z.infer<typeof Args>;

function mamba(args: Args): Mamba2Mixer {
  const [heads, headDim] = [args.mamba_n_heads!, args.mamba_d_head!];
  return new Mamba2Mixer(
    {
      dims: args.hidden_size,
      heads,
      headDim,
      groups: args.mamba_n_groups!,
      stateSize: args.mamba_d_state!,
      kernelSize: args.mamba_d_conv!,
    },
    {
      bias: args.mamba_proj_bias ?? false,
      convBias: args.mamba_conv_bias ?? false,
      limits: args.time_step_limit ?? [0.001, 100],
      norm: new GatedRMSNorm(heads * headDim, args.rms_norm_eps),
    },
  );
}

/** A gated MLP with gate and value in one projection. */
class SharedMLP extends Module {
  input_linear: Layer;
  output_linear: Layer;

  constructor(dims: number, hiddenDims: number) {
    super();
    this.input_linear = new Linear(dims, 2 * hiddenDims, { bias: false });
    this.output_linear = new Linear(hiddenDims, dims, { bias: false });
  }

  forward(x: Tensor): Tensor {
    const [gate, up] = this.input_linear.forward(x).split(2, -1) as [Tensor, Tensor];
    return this.output_linear.forward(swiglu(gate, up));
  }
}

type HybridCache = KeyValueCache | ArraysCache;

class Block extends Module implements DecoderLayer<HybridCache> {
  input_layernorm: RMSNorm;
  mamba?: Mamba2Mixer;
  self_attn?: granite.Attention;
  shared_mlp?: SharedMLP;
  block_sparse_moe?: MoE;
  mlp?: GatedMLP;
  post_attention_layernorm: RMSNorm;
  readonly mask: MaskRule<never>;
  readonly makeCache?: () => HybridCache;
  readonly factor: number;

  constructor(args: Args, type: Args["layer_types"][number]) {
    super();
    const { hidden_size: D, intermediate_size: hidden, rms_norm_eps: eps, num_local_experts: experts } = args;
    const isRecurrent = type === "mamba";
    this.input_layernorm = new RMSNorm(D, eps);
    if (isRecurrent) this.mamba = mamba(args);
    else this.self_attn = new granite.Attention(args, args.position_embedding_type === "nope" ? { rope: null } : {});
    if (experts) {
      this.shared_mlp = new SharedMLP(D, args.shared_intermediate_size!);
      this.block_sparse_moe = new MoE({
        dims: D,
        hiddenDims: hidden,
        experts,
        expertsPerToken: args.num_experts_per_tok!,
      });
    } else {
      this.mlp = new GatedMLP(D, hidden, { bias: args.mlp_bias });
    }
    this.post_attention_layernorm = new RMSNorm(D, eps);
    this.mask = isRecurrent ? recurrent : fullAttention;
    if (isRecurrent) this.makeCache = () => new ArraysCache(2);
    this.factor = args.residual_multiplier;
  }

  forward(x: Residual, mask: Mask, cache?: HybridCache): Residual {
    const h = x.plus(this.#mix(x.branch(this.input_layernorm), mask, cache).multiply(this.factor));
    return h.plus(this.#feed(h.branch(this.post_attention_layernorm)).multiply(this.factor));
  }

  #mix(x: Tensor, mask: Mask, cache?: HybridCache): Tensor {
    return this.mamba
      ? this.mamba.forward(x, mask as Tensor | null, cache as ArraysCache | undefined)
      : this.self_attn!.forward(x, mask, cache as KeyValueCache | undefined);
  }

  #feed(x: Tensor): Tensor {
    return this.mlp ? this.mlp.forward(x) : this.block_sparse_moe!.forward(x).add(this.shared_mlp!.forward(x));
  }
}

export class Model extends CausalLM<HybridCache> {
  constructor(args: Args) {
    super(args, (index) => new Block(args, args.layer_types[index]!), granite.trunkFactors(args));
  }

  /** Turns convolutions, takes the experts' gates and values apart, and those of MLPs, which dense models call shared. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = super.sanitize(weights);
    turnConvolutions(sanitized);
    for (const [index, layer] of this.layers.entries()) {
      const path = `model.layers.${index}`;
      if ((layer as Block).mlp) splitMLP(sanitized, `${path}.shared_mlp`, `${path}.mlp`);
      else splitExperts(sanitized, `${path}.block_sparse_moe`);
    }
    return sanitized;
  }
}

function splitMLP(weights: Map<string, Tensor>, from: string, to: string): void {
  const joint = weights.get(`${from}.input_linear.weight`);
  const down = weights.get(`${from}.output_linear.weight`);
  if (!joint || !down) return;
  for (const name of ["input_linear", "output_linear"]) weights.delete(`${from}.${name}.weight`);
  const [gate, up] = joint.split(2, 0) as [Tensor, Tensor];
  weights.set(`${to}.gate_proj.weight`, mx.contiguous(gate));
  weights.set(`${to}.up_proj.weight`, mx.contiguous(up));
  weights.set(`${to}.down_proj.weight`, down);
}

/** The router decides which experts are read: it stays at 8 bits. */
export const quantize = (path: string) => (path.endsWith("router.layer") ? { groupSize: 64, bits: 8 } : undefined);

const { layer, parameters } = mixerNames("mamba");

/** Gate and value of the shared expert are two tensors in files. */
const joined = () => ({
  "shared_mlp.input_linear": {
    parts: ["ffn_gate_shexp", "ffn_up_shexp"],
    movesRows: true,
    join: (parts: readonly Tensor[]) => mx.concatenate([...parts], { axis: 0 }),
    split: (x: Tensor) => x.split(2, 0),
  },
});

/** Experts' outputs judge the factors of what they share with the block beside them; dense models have one block. */
export const awq: AwqFacts = {
  noClip: ["q_proj", "k_proj"],
  groups: [
    ...["self_attn", "mamba"].map((part) => ({
      before: "input_layernorm",
      layers: ["q_proj", "k_proj", "v_proj", "in_proj"].map((name) => `${part}.${name}`),
      part,
    })),
    downGroup("mlp"),
    downGroup("block_sparse_moe.switch_mlp"),
    gatedGroup("post_attention_layernorm"),
    {
      before: "post_attention_layernorm",
      layers: [
        ...["switch_mlp.gate_proj", "switch_mlp.up_proj", "router.layer"].map((name) => `block_sparse_moe.${name}`),
        "shared_mlp.input_linear",
      ],
      part: "block_sparse_moe",
    },
  ],
};

export const gguf = decoder("granitehybrid", {
  names: new TensorNames(
    {
      ...plainLayer,
      ...layer,
      ...expertLayer("block_sparse_moe"),
      ffn_gate_inp: "block_sparse_moe.router.layer",
      ffn_down_shexp: "shared_mlp.output_linear",
    },
    { parameters },
  ),
  joined,
  changes: (config) => mixerChanges("mamba", (config as Args).mamba_n_groups ?? 1),
  pairsRows: true,
  integers: { ...expertCounts, expert_shared_feed_forward_length: "shared_intermediate_size" },
  floats: granite.factorNames,
  only: { mamba_proj_bias: false },
  read(file, { num_hidden_layers: count }) {
    const { heads, headDim, groups, stateSize, kernelSize } = readMixer(file);
    if (groups > 1) file.wrong(`its norms are by ${groups} groups; mlxlm has them whole`);
    const kvHeads = file.list("attention.head_count_kv") ?? [];
    const types = Array.from({ length: count as number }, (_, index) => (kvHeads[index] ? "attention" : "mamba"));
    const first = types.indexOf("mamba");
    return {
      layer_types: types,
      mamba_n_heads: heads,
      mamba_d_head: headDim,
      mamba_n_groups: groups,
      mamba_d_state: stateSize,
      mamba_d_conv: kernelSize,
      mamba_conv_bias: file.shape(`blk.${first}.ssm_conv1d.bias`) !== undefined,
      mamba_proj_bias: false,
      position_embedding_type: (file.list("rope.scaling.finetuned")?.[0] ?? 0) === 0 ? "nope" : "rope",
    };
  },
  write(settings) {
    const args = settings as unknown as Args;
    if (!args.layer_types.includes("mamba")) noPlace('"layer_types" without "mamba"');
    if (args.mamba_n_groups !== 1) noPlace(`"mamba_n_groups" ${args.mamba_n_groups} (not 1)`);
    const inner = args.mamba_n_heads! * args.mamba_d_head!;
    if (inner !== 2 * args.hidden_size) noPlace(`"mamba_n_heads" that make ${inner} (not twice "hidden_size")`);
    checkLimits(args.time_step_limit);
    return {
      "attention.head_count_kv": u32(
        args.layer_types.map((type) => (type === "attention" ? args.num_key_value_heads : 0)),
      ),
      "rope.scaling.finetuned": flag(args.position_embedding_type !== "nope"),
      ...writeMixer({
        heads: args.mamba_n_heads!,
        headDim: args.mamba_d_head!,
        groups: args.mamba_n_groups!,
        stateSize: args.mamba_d_state!,
        kernelSize: args.mamba_d_conv!,
      }),
    };
  },
});
