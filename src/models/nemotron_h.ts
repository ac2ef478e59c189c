/**
 * Nemotron-H and Nemotron 3: each block is one thing by itself, a Mamba-2 mixer, attention without positions, an MLP or
 * experts, in the order that a pattern of letters gives.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  ArraysCache,
  type Cache,
  type DecoderLayer,
  divideInner,
  fullAttention,
  GatedRMSNorm,
  GroupedRouter,
  type KeyValueCache,
  type Layer,
  Linear,
  Mamba2Mixer,
  type Mask,
  type MaskRule,
  Module,
  mixExperts,
  noMask,
  type Residual,
  RMSNorm,
  recurrent,
  type Split,
  SwitchMLP,
  squaredRelu,
  stackExperts,
  turnConvolutions,
} from "../nn";
import { checkHeads, size, stepLimits } from "./args";
import { BackboneLM } from "./backbone";
import { decoder, routedExperts } from "./gguf/decoder";
import { f32, u32 } from "./gguf/facts";
import { TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { backboneNames, checkLimits, mixerChanges, mixerNames, readMixer, writeMixer } from "./gguf/state-space";
import { Attention } from "./llama";
import { DraftHead, type DraftParts, type Trunk } from "./mtp/draft-head";
import { depthOf, draftTensors, type MtpFacts } from "./mtp/facts";

/** What a block is, by its letter in the pattern. */
const Kind = z.enum(["M", "*", "-", "E"], { error: `has a letter that is none of "M", "*", "-" and "E"` });

type Kind = z.infer<typeof Kind>;

/** The same by the words of newer configurations, old spellings among them. */
const kinds: Record<string, Kind> = {
  linear_attention: "M",
  mamba: "M",
  conv: "M",
  full_attention: "*",
  attention: "*",
  mlp: "-",
  moe: "E",
};

const names = Object.keys(kinds) as [string, ...string[]];

export const Args = z
  .object({
    vocab_size: size,
    hidden_size: size,
    intermediate_size: size,
    num_attention_heads: size,
    num_key_value_heads: size,
    head_dim: size.nullish(),
    attention_bias: z.boolean(),
    mamba_num_heads: size,
    mamba_head_dim: size,
    mamba_proj_bias: z.boolean(),
    ssm_state_size: size,
    conv_kernel: size,
    n_groups: size,
    mlp_bias: z.boolean(),
    layer_norm_epsilon: z.number().positive(),
    use_conv_bias: z.boolean(),
    hybrid_override_pattern: z.union([z.string(), z.array(z.string())]).nullish(),
    layers_block_type: z.array(z.enum(names)).nullish(),
    layer_types: z.array(z.enum(names)).nullish(),
    moe_intermediate_size: size.nullish(),
    moe_shared_expert_intermediate_size: size.nullish(),
    /** Width that hidden states are brought to for the experts; their own where absent. */
    moe_latent_size: size.nullish(),
    n_group: size.nullish(),
    topk_group: size.nullish(),
    n_routed_experts: size.nullish(),
    n_shared_experts: z.int().nonnegative().nullish(),
    num_experts_per_tok: size.nullish(),
    norm_topk_prob: z.boolean().nullish(),
    routed_scaling_factor: z.number().nullish(),
    /** The blocks of a draft layer; attention and experts where absent. */
    mtp_hybrid_override_pattern: z.string().nullish(),
    mtp_layers_block_type: z.array(z.enum(names)).nullish(),
    time_step_limit: stepLimits.nullish(),
  })
  .superRefine(checkHeads)
  .transform((args, context) => {
    const problem = (field: string, message: string) => {
      context.addIssue({ code: "custom", path: [field], message });
      return z.NEVER;
    };
    const { mamba_num_heads: heads, n_groups: groups, n_routed_experts: experts } = args;
    const words = args.layers_block_type ?? args.layer_types;
    const letters = args.hybrid_override_pattern ?? words?.map((word) => kinds[word]!);
    if (!letters) return problem("hybrid_override_pattern", `is missing, and so is "layers_block_type"`);
    const pattern = z
      .array(Kind)
      .min(1)
      .safeParse([...letters]);
    if (!pattern.success) return problem("hybrid_override_pattern", pattern.error.issues[0]!.message);
    const draft = args.mtp_hybrid_override_pattern ?? args.mtp_layers_block_type?.map((word) => kinds[word]!) ?? "*E";
    const draftPattern = z
      .array(Kind)
      .min(1)
      .safeParse([...draft]);
    if (!draftPattern.success) return problem("mtp_hybrid_override_pattern", draftPattern.error.issues[0]!.message);
    if (heads % groups !== 0) {
      problem("n_groups", `is ${groups}, but "mamba_num_heads" (${heads}) must be a multiple of it`);
    }
    if (pattern.data.includes("E")) {
      const needed = ["n_routed_experts", "num_experts_per_tok", "moe_intermediate_size"] as const;
      for (const field of needed) if (!args[field]) problem(field, "is missing, but there are layers of experts");
      if (args.n_shared_experts && !args.moe_shared_expert_intermediate_size) {
        problem(
          "moe_shared_expert_intermediate_size",
          `is missing, but "n_shared_experts" is ${args.n_shared_experts}`,
        );
      }
      if (experts && (args.num_experts_per_tok ?? 0) > experts) {
        problem("num_experts_per_tok", `is ${args.num_experts_per_tok}, but "n_routed_experts" is ${experts}`);
      }
    }
    const patterns = { pattern: pattern.data, draftPattern: draftPattern.data };
    return { ...args, num_hidden_layers: pattern.data.length, ...patterns };
  });

type Args = z.infer<typeof Args>;

class MLP extends Module {
  up_proj: Layer;
  down_proj: Layer;

  constructor({ hidden_size, mlp_bias: bias }: Args, hiddenDims: number) {
    super();
    this.up_proj = new Linear(hidden_size, hiddenDims, { bias });
    this.down_proj = new Linear(hiddenDims, hidden_size, { bias });
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    return this.down_proj.forward(squaredRelu(this.up_proj.forward(x)));
  }

  shard(split: Split): void {
    this.down_proj = divideInner(this.down_proj, [this.up_proj], split);
  }
}

/** Experts, in a space of their own where there is a latent size, and one that all tokens use. */
class MoE extends Module {
  switch_mlp: SwitchMLP;
  gate: GroupedRouter;
  shared_experts?: MLP;
  fc1_latent_proj?: Layer;
  fc2_latent_proj?: Layer;

  constructor(args: Args) {
    super();
    const { hidden_size: dims, moe_latent_size: latent, mlp_bias: bias } = args;
    const experts = args.n_routed_experts!;
    this.switch_mlp = new SwitchMLP(latent ?? dims, args.moe_intermediate_size!, experts, squaredRelu);
    this.gate = new GroupedRouter({
      dims,
      experts,
      expertsPerToken: args.num_experts_per_tok!,
      groups: args.n_group ?? 1,
      groupsPerToken: args.topk_group ?? 1,
      normalize: args.norm_topk_prob ?? false,
      scale: args.routed_scaling_factor ?? 1,
    });
    if (args.n_shared_experts) this.shared_experts = new MLP(args, args.moe_shared_expert_intermediate_size!);
    if (latent) {
      this.fc1_latent_proj = new Linear(dims, latent, { bias });
      this.fc2_latent_proj = new Linear(latent, dims, { bias });
    }
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    const inner = this.fc1_latent_proj?.forward(x) ?? x;
    const mixed = mixExperts(inner, this.switch_mlp, this.gate.forward(x)).astype(x.dtype);
    const routed = this.fc2_latent_proj?.forward(mixed) ?? mixed;
    return this.shared_experts ? routed.add(this.shared_experts.forward(x)) : routed;
  }
}

const mamba = (args: Args) =>
  new Mamba2Mixer(
    {
      dims: args.hidden_size,
      heads: args.mamba_num_heads,
      headDim: args.mamba_head_dim,
      groups: args.n_groups,
      stateSize: args.ssm_state_size,
      kernelSize: args.conv_kernel,
    },
    {
      bias: args.mamba_proj_bias,
      convBias: args.use_conv_bias,
      limits: args.time_step_limit ?? [0, Infinity],
      norm: new GatedRMSNorm(args.mamba_num_heads * args.mamba_head_dim, args.layer_norm_epsilon, args.n_groups),
    },
  );

type HybridCache = KeyValueCache | ArraysCache;

/** What a block is; only a recurrent part and attention look at mask and cache. */
interface Part extends Module {
  forward(x: Tensor, mask: Mask, cache?: HybridCache): Tensor;
}

const parts: Record<Kind, (args: Args) => Part> = {
  M: mamba,
  "*": (args) => new Attention({ ...args, rope_traditional: false }, { rope: null }),
  "-": (args) => new MLP(args, args.intermediate_size),
  E: (args) => new MoE(args),
};

const masks: Record<Kind, MaskRule<never>> = { M: recurrent, "*": fullAttention, "-": noMask, E: noMask };

class Block extends Module implements DecoderLayer<HybridCache> {
  mixer: Part;
  norm: RMSNorm;
  readonly mask: MaskRule<HybridCache>;
  readonly stateless: boolean;
  readonly makeCache?: () => HybridCache;

  constructor(args: Args, kind: Kind) {
    super();
    this.mixer = parts[kind](args);
    this.norm = new RMSNorm(args.hidden_size, args.layer_norm_epsilon);
    this.mask = masks[kind];
    this.stateless = this.mask === noMask;
    if (kind === "M") this.makeCache = () => new ArraysCache(2);
  }

  forward(x: Residual, mask: Mask, cache?: HybridCache): Residual {
    return x.plus(this.mixer.forward(x.branch(this.norm), mask, cache));
  }
}

export class Model extends BackboneLM<HybridCache> {
  readonly experts: number;

  constructor(args: Args) {
    const blocks = () => args.pattern.map((kind) => new Block(args, kind));
    super({ ...args, tie_word_embeddings: false }, blocks, args.layer_norm_epsilon);
    this.experts = args.n_routed_experts ?? 0;
  }

  /** Stacks the experts, and leaves out the draft layers. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = super.sanitize(new Map([...weights].filter(([name]) => !name.startsWith("mtp."))));
    for (const index of this.layers.keys()) stack(sanitized, `backbone.layers.${index}.mixer`, this.experts);
    return sanitized;
  }
}

function stack(weights: Map<string, Tensor>, mixer: string, count: number): void {
  const names = { fc1: "up_proj", fc2: "down_proj" };
  stackExperts(weights, { count, from: `${mixer}.experts`, to: `${mixer}.switch_mlp`, names });
}

type First = Block & { enorm: RMSNorm; hnorm: RMSNorm; eh_proj: Layer };
type Last = Block & { final_layernorm: RMSNorm };

/** Draft layers of several blocks: the first has what brings them their input, the last the norm behind them. */
class PatternHead extends DraftHead {
  layers: Block[];
  readonly #blocks: number;

  /** @param count how many blocks there are tensors of */
  constructor(trunk: Trunk, args: Args, count: number) {
    super(trunk);
    const { hidden_size: dims, layer_norm_epsilon: eps, draftPattern: pattern } = args;
    this.#blocks = pattern.length;
    // Whole draft layers, so that tensors that are not there are missed.
    const whole = Math.ceil(count / pattern.length) * pattern.length;
    this.layers = Array.from({ length: whole }, (_, i) => {
      const place = i % pattern.length;
      const block = new Block(args, pattern[place]!);
      if (place === 0) {
        const eh_proj = new Linear(2 * dims, dims, { bias: false });
        Object.assign(block, { enorm: new RMSNorm(dims, eps), hnorm: new RMSNorm(dims, eps), eh_proj });
      }
      if (place === pattern.length - 1) Object.assign(block, { final_layernorm: new RMSNorm(dims, eps) });
      return block;
    });
  }

  get depth(): number {
    return this.layers.length / this.#blocks;
  }

  protected parts(index: number): DraftParts {
    const blocks = this.layers.slice(index * this.#blocks, (index + 1) * this.#blocks);
    const { enorm, hnorm, eh_proj } = blocks[0] as First;
    const { final_layernorm: lastNorm } = blocks.at(-1) as Last;
    const own = blocks as DecoderLayer<never>[] as DecoderLayer<Cache>[];
    return { embeddingNorm: enorm, hiddenNorm: hnorm, projection: eh_proj, blocks: own, lastNorm };
  }
}

export const mtp: MtpFacts = {
  sanitize(weights, { n_routed_experts: count }: Args) {
    const found = draftTensors(weights);
    turnConvolutions(found);
    for (let i = 0; i < depthOf(found); i++) stack(found, `layers.${i}.mixer`, count ?? 0);
    return found;
  },
  head: (trunk, args: Args, count) => new PatternHead(trunk, args, count),
};

/** Decay rates, and the small biases of the routing, are learned in float32. */
export const keepsDtype = (path: string) => /(A_log|e_score_correction_bias)$/.test(path);

const { layer, parameters } = mixerNames("mixer");

const integers = {
  ...routedExperts,
  expert_shared_feed_forward_length: "moe_shared_expert_intermediate_size",
  moe_latent_size: "moe_latent_size",
};

export const gguf = decoder("nemotron_h", {
  variant: (settings) => ((settings as unknown as Args).pattern.includes("E") ? "nemotron_h_moe" : "nemotron_h"),
  names: new TensorNames(
    {
      ...layer,
      attn_norm: "norm",
      attn_q: "mixer.q_proj",
      attn_k: "mixer.k_proj",
      attn_v: "mixer.v_proj",
      attn_output: "mixer.o_proj",
      ffn_up: "mixer.up_proj",
      ffn_down: "mixer.down_proj",
      ffn_gate_inp: "mixer.gate",
      ffn_up_exps: "mixer.switch_mlp.fc1",
      ffn_down_exps: "mixer.switch_mlp.fc2",
      ffn_up_shexp: "mixer.shared_experts.up_proj",
      ffn_down_shexp: "mixer.shared_experts.down_proj",
      ffn_latent_down: "mixer.fc1_latent_proj",
      ffn_latent_up: "mixer.fc2_latent_proj",
    },
    {
      parameters: { ...parameters, "exp_probs_b.bias": "mixer.gate.e_score_correction_bias" },
      outer: backboneNames,
      layers: "backbone.layers",
    },
  ),
  changes: (config) => mixerChanges("mixer", (config as Args).n_groups),
  epsilon: ["attention.layer_norm_rms_epsilon", "layer_norm_epsilon"],
  stretches: false,
  integers,
  floats: { expert_weights_scale: "routed_scaling_factor" },
  flags: { expert_weights_norm: "norm_topk_prob" },
  only: { attention_bias: false, mamba_proj_bias: false, mlp_bias: false },
  read(file, { num_hidden_layers: count, intermediate_size: width }) {
    const { heads, headDim, groups, stateSize, kernelSize } = readMixer(file);
    const [kvHeads, widths] = [file.list("attention.head_count_kv") ?? [], file.list("feed_forward_length") ?? []];
    const isSparse = file.number("expert_count") !== undefined;
    const letter = (index: number) => (widths[index] ? (isSparse ? "E" : "-") : kvHeads[index] ? "*" : "M");
    const pattern = Array.from({ length: count as number }, (_, index) => letter(index));
    return {
      intermediate_size: width,
      hybrid_override_pattern: pattern.join(""),
      mamba_num_heads: heads,
      mamba_head_dim: headDim,
      n_groups: groups,
      ssm_state_size: stateSize,
      conv_kernel: kernelSize,
      use_conv_bias: file.shape(`blk.${pattern.indexOf("M")}.ssm_conv1d.bias`) !== undefined,
      n_group: 1,
      topk_group: 1,
    };
  },
  write(settings) {
    const args = settings as unknown as Args;
    const { pattern, n_group: groups, topk_group: used } = args;
    if (pattern.includes("E") && pattern.includes("-")) noPlace("MLPs beside experts");
    if (pattern.includes("E") && !args.n_shared_experts) noPlace("experts without a shared one");
    checkLimits(args.time_step_limit as [number, number] | null);
    const width = pattern.includes("E") ? args.moe_intermediate_size! : args.intermediate_size;
    if (pattern.includes("E") && (groups ?? 1) > (used ?? 1)) noPlace(`"n_group" ${groups} (not "topk_group")`);
    const none = pattern.includes("E") ? [] : Object.keys(integers).map((key) => [key, undefined]);
    return {
      ...Object.fromEntries(none),
      "attention.head_count_kv": u32(pattern.map((kind) => (kind === "*" ? args.num_key_value_heads : 0))),
      feed_forward_length: u32(pattern.map((kind) => (kind === "E" || kind === "-" ? width : 0))),
      "attention.layer_norm_epsilon": f32(args.layer_norm_epsilon),
      block_count: u32(pattern.length),
      ...writeMixer({
        heads: args.mamba_num_heads,
        headDim: args.mamba_head_dim,
        groups: args.n_groups,
        stateSize: args.ssm_state_size,
        kernelSize: args.conv_kernel,
      }),
    };
  },
});
