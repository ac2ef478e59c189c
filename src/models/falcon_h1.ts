/**
 * Falcon-H1: each layer has attention and a Mamba-2 mixer side by side, whose results are added. The factors of its
 * parametrization (muP) are multiplied into the weights when a checkpoint is read.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  ArraysCache,
  attentionMask,
  CacheList,
  type DecoderLayer,
  GatedMLP,
  GatedRMSNorm,
  type KeyValueCache,
  KVCache,
  Mamba2Mixer,
  type Mask,
  type MaskRule,
  Module,
  type Residual,
  RMSNorm,
  recurrent,
  swiglu,
} from "../nn";
import { attentionFields, checkHeads, ropeOf, size, trunkFields } from "./args";
import { type AwqFacts, downGroup } from "./awq-facts";
import { decoder } from "./gguf/decoder";
import { plainLayer, TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { mixerChanges, mixerNames, readMixer, writeMixer } from "./gguf/state-space";
import { CausalLM } from "./language-model";
import { Attention } from "./llama";

const factor = z.number();

export const Args = z
  .object({
    ...trunkFields,
    ...attentionFields,
    hidden_size: size.default(1024),
    num_hidden_layers: size.default(36),
    vocab_size: size.default(32_784),
    rms_norm_eps: z.number().positive().default(1e-5),
    intermediate_size: size.default(2048),
    num_attention_heads: size.default(8),
    num_key_value_heads: size.default(2),
    head_dim: size.default(64),
    mlp_bias: z.boolean().default(false),
    projectors_bias: z.boolean().default(false),
    mamba_conv_bias: z.boolean().default(true),
    mamba_d_conv: size.default(4),
    mamba_d_head: size.default(64),
    mamba_d_ssm: size.default(1536),
    mamba_d_state: size.default(128),
    mamba_n_groups: size.default(1),
    mamba_n_heads: size.default(24),
    mamba_norm_before_gate: z.boolean().default(false),
    mamba_proj_bias: z.boolean().default(false),
    mamba_rms_norm: z.boolean().default(false),
    attention_in_multiplier: factor.default(1),
    attention_out_multiplier: factor.default(0.9375),
    embedding_multiplier: factor.default(5.656854249492381),
    key_multiplier: factor.default(0.390625),
    lm_head_multiplier: factor.default(0.0390625),
    mlp_multipliers: z.tuple([factor, factor]).default([0.8838834764831844, 0.5859375]),
    ssm_in_multiplier: factor.default(1.25),
    /** Of the mixer's gate, input, B, C and step sizes. */
    ssm_multipliers: z
      .tuple([factor, factor, factor, factor, factor])
      .default([0.3535533905932738, 0.25, 0.3535533905932738, 0.5, 0.3535533905932738]),
    ssm_out_multiplier: factor.default(0.23570226039551587),
  })
  .superRefine(checkHeads)
  .superRefine(
    ({ mamba_n_heads: heads, mamba_n_groups: groups, mamba_d_head: headDim, mamba_d_ssm: inner }, context) => {
      const problem = (field: string, message: string) => context.addIssue({ code: "custom", path: [field], message });
      if (heads % groups !== 0) {
        problem("mamba_n_groups", `is ${groups}, but "mamba_n_heads" (${heads}) must be a multiple of it`);
      }
      if (heads * headDim !== inner) {
        problem("mamba_d_ssm", `is ${inner}, but "mamba_n_heads" × "mamba_d_head" is ${heads * headDim}`);
      }
    },
  );

type Args = z.infer<typeof Args>;

/** Gates after the norm, not before. */
class NormBeforeGate extends GatedRMSNorm {
  override readonly gatesFirst = false;

  override gated(x: Tensor, gate: Tensor): Tensor {
    return swiglu(gate, this.forward(x));
  }
}

function mamba(args: Args): Mamba2Mixer {
  const Norm = args.mamba_norm_before_gate ? NormBeforeGate : GatedRMSNorm;
  const norm = () => new Norm(args.mamba_d_ssm, args.rms_norm_eps, args.mamba_n_groups);
  return new Mamba2Mixer(
    {
      dims: args.hidden_size,
      heads: args.mamba_n_heads,
      headDim: args.mamba_d_head,
      groups: args.mamba_n_groups,
      stateSize: args.mamba_d_state,
      kernelSize: args.mamba_d_conv,
    },
    {
      bias: args.mamba_proj_bias,
      outputBias: args.projectors_bias,
      convBias: args.mamba_conv_bias,
      limits: [0, Infinity],
      norm: args.mamba_rms_norm ? norm() : undefined,
    },
  );
}

type Pair = CacheList<ArraysCache | KeyValueCache>;

const parts = (cache: Pair | undefined) => (cache?.parts ?? []) as [ArraysCache?, KeyValueCache?];

/** Attention's mask. The mixer's is made where it is used: it is nothing but in batches of prompts. */
const besideMixer: MaskRule<Pair> = { key: "beside a mixer", make: (h, cache) => attentionMask(h, parts(cache)[1]) };

class Block extends Module implements DecoderLayer<Pair> {
  feed_forward: GatedMLP;
  mamba: Mamba2Mixer;
  self_attn: Attention;
  input_layernorm: RMSNorm;
  pre_ff_layernorm: RMSNorm;
  readonly mask = besideMixer;

  constructor(args: Args) {
    super();
    const { hidden_size: D, rms_norm_eps: eps } = args;
    this.feed_forward = new GatedMLP(D, args.intermediate_size, { bias: args.mlp_bias });
    this.mamba = mamba(args);
    this.self_attn = new Attention(args, { rope: ropeOf(args, { base: 100_000_000_000 }) });
    this.input_layernorm = new RMSNorm(D, eps);
    this.pre_ff_layernorm = new RMSNorm(D, eps);
  }

  forward(x: Residual, mask: Mask, cache?: Pair): Residual {
    const [state, keysValues] = parts(cache);
    const branch = x.branch(this.input_layernorm);
    const own = recurrent.make(branch, state) as Tensor | null;
    const attended = this.self_attn.forward(branch, mask, keysValues);
    const h = x.plus(this.mamba.forward(branch, own, state)).plus(attended);
    return h.plus(this.feed_forward.forward(h.branch(this.pre_ff_layernorm)));
  }

  makeCache(): Pair {
    return new CacheList<ArraysCache | KeyValueCache>([new ArraysCache(2), new KVCache()]);
  }
}

export class Model extends CausalLM<Pair> {
  readonly #args: Args;

  constructor(args: Args) {
    const logits = args.lm_head_multiplier / args.embedding_multiplier;
    super(args, () => new Block(args), {
      names: { norm: "final_layernorm" },
      // The tied embedding has its own factor in its weights by now.
      adjustLogits: args.tie_word_embeddings ? (x) => x.multiply(logits) : undefined,
    });
    this.#args = args;
  }

  /** Multiplies the factors into the weights and turns the convolutions, by which it knows what is done already. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = super.sanitize(weights);
    const turned = (name: string, weight: Tensor) => name.endsWith("conv1d.weight") && weight.dim(-1) !== 1;
    if (![...sanitized].some(([name, weight]) => turned(name, weight))) return sanitized;
    for (const [name, weight] of sanitized) {
      const by = factorOn(name, this.#args);
      if (turned(name, weight)) sanitized.set(name, mx.moveaxis(weight, 2, 1));
      else if (by !== null)
        sanitized.set(name, weight.multiply(by instanceof mx.Tensor ? by.astype(weight.dtype) : by));
    }
    return sanitized;
  }
}

/** What a parameter is multiplied by; null for nothing. A factor on a layer's input is one on its weight. */
function factorOn(name: string, args: Args): number | Tensor | null {
  const [, layer, kind] = /(\w+)\.(weight|bias)$/.exec(name) ?? [];
  const onInput = (by: number) => (kind === "weight" ? by : 1);
  switch (layer) {
    case "embed_tokens":
      return args.embedding_multiplier;
    case "lm_head":
      return args.lm_head_multiplier;
    case "q_proj":
    case "v_proj":
      return onInput(args.attention_in_multiplier);
    case "k_proj":
      return onInput(args.attention_in_multiplier) * args.key_multiplier;
    case "o_proj":
      return args.attention_out_multiplier;
    case "gate_proj":
      return args.mlp_multipliers[0];
    case "down_proj":
      return args.mlp_multipliers[1];
    case "out_proj":
      return args.ssm_out_multiplier;
    case "in_proj": {
      const rows = mixerFactors(args).multiply(onInput(args.ssm_in_multiplier));
      return kind === "weight" ? rows.expandDims(1) : rows;
    }
    default:
      return null;
  }
}

/** One factor for each output of the mixer's first projection. */
function mixerFactors(args: Args): Tensor {
  const state = args.mamba_n_groups * args.mamba_d_state;
  const sizes = [args.mamba_d_ssm, args.mamba_d_ssm, state, state, args.mamba_n_heads];
  return mx.array(args.ssm_multipliers.flatMap((by, i) => new Array<number>(sizes[i]!).fill(by)));
}

const { layer, parameters } = mixerNames("mamba");

export const gguf = decoder("falcon-h1", {
  names: new TensorNames(
    {
      ...plainLayer,
      ...layer,
      ffn_gate: "feed_forward.gate_proj",
      ffn_up: "feed_forward.up_proj",
      ffn_down: "feed_forward.down_proj",
    },
    {
      // Without an end, as llama.cpp asks for it.
      parameters: { ...parameters, ffn_norm: "pre_ff_layernorm.weight" },
      outer: { output_norm: "model.final_layernorm" },
    },
  ),
  changes: (config) => mixerChanges("mamba", (config as Args).mamba_n_groups),
  ropeBase: 100_000_000_000,
  integers: { vocab_size: "vocab_size" },
  only: { rope_traditional: false, mamba_proj_bias: false, projectors_bias: false, mamba_norm_before_gate: false },
  read(file) {
    const { heads, headDim, groups, stateSize, kernelSize } = readMixer(file);
    return {
      mamba_n_heads: heads,
      mamba_d_head: headDim,
      mamba_d_ssm: heads * headDim,
      mamba_n_groups: groups,
      mamba_d_state: stateSize,
      mamba_d_conv: kernelSize,
      mamba_conv_bias: file.shape("blk.0.ssm_conv1d.bias") !== undefined,
      mamba_rms_norm: file.shape("blk.0.ssm_norm.weight") !== undefined,
      // They are in the weights.
      ...plainFactors,
    };
  },
  write(settings) {
    const args = settings as unknown as Args;
    if (args.tie_word_embeddings && args.lm_head_multiplier !== args.embedding_multiplier) {
      noPlace('"lm_head_multiplier" of a tied embedding');
    }
    return writeMixer({
      heads: args.mamba_n_heads,
      headDim: args.mamba_d_head,
      groups: args.mamba_n_groups,
      stateSize: args.mamba_d_state,
      kernelSize: args.mamba_d_conv,
    });
  },
});

const plainFactors = {
  attention_in_multiplier: 1,
  attention_out_multiplier: 1,
  embedding_multiplier: 1,
  key_multiplier: 1,
  lm_head_multiplier: 1,
  mlp_multipliers: [1, 1],
  ssm_in_multiplier: 1,
  ssm_multipliers: [1, 1, 1, 1, 1],
  ssm_out_multiplier: 1,
};

/** One norm is ahead of attention and of the layer with a state. */
export const awq: AwqFacts = {
  noClip: ["q_proj", "k_proj"],
  groups: [
    {
      before: "input_layernorm",
      layers: ["mamba.in_proj", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
      part: "self_attn",
    },
    downGroup("feed_forward"),
    {
      before: "pre_ff_layernorm",
      layers: ["feed_forward.gate_proj", "feed_forward.up_proj"],
      part: "feed_forward",
    },
  ],
};
