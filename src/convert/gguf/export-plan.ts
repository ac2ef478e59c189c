/** What a model's configuration comes to in a GGUF file: metadata, and how weights change. */
import { z } from "zod";
import { ExitCode, UserError } from "../../errors";
import type { Tensor } from "../../mlx";
import { architecture } from "../../models";
import { parseArgs } from "../../models/args";
import { RopeScaling } from "../../nn";
import type { ModelConfig } from "../config";
import { type Family, families, largestGemma3, usualPattern } from "./architecture";
import { stretches, usualBands } from "./llama3-scaling";
import type { GgufField } from "./write";

export interface ExportPlan {
  /** `general.architecture` */
  architecture: string;
  family: Family;
  /** The architecture's metadata. */
  fields: [string, GgufField][];
  /** Llama 3's stretching of the rotation. */
  ropeFactors: number[] | null;
  /** A parameter as the file has it, lazily. */
  change: (name: string, weight: Tensor) => Tensor;
}

/** Architectures in GGUF by model type. */
const architectures: Readonly<Record<string, string>> = {
  gemma3_text: "gemma3",
  llama: "llama",
  mistral: "llama",
  mixtral: "llama",
  qwen2: "qwen2",
  qwen3: "qwen3",
};

const size = z.int().positive();

/** What is read of a configuration whose gaps the architecture has filled. */
const Settings = z.looseObject({
  hidden_size: size,
  num_hidden_layers: size,
  intermediate_size: size,
  num_attention_heads: size,
  num_key_value_heads: size.nullish(),
  head_dim: size.nullish(),
  rms_norm_eps: z.number(),
  max_position_embeddings: size,
  rope_theta: z.number().nullish(),
  rope_scaling: RopeScaling.nullish(),
  rope_parameters: RopeScaling.nullish(),
  rope_traditional: z.boolean().nullish(),
  layer_types: z.array(z.string()).nullish(),
  num_local_experts: size.nullish(),
  num_experts_per_tok: size.nullish(),
  sliding_window: size.nullish(),
  sliding_window_pattern: size.nullish(),
  query_pre_attn_scalar: z.number().nullish(),
  rope_local_base_freq: z.number().nullish(),
});

type Settings = z.infer<typeof Settings>;

/** @throws UserError for a model type, or a setting of one, that GGUF has no form for */
export async function exportPlan(config: ModelConfig, folder: string): Promise<ExportPlan> {
  const type = config.model_type as string;
  if (!Object.hasOwn(architectures, type)) {
    throw new UserError(`models of type "${type}" cannot be saved as GGUF`, {
      code: ExitCode.notFound,
      hint: `Those that can: ${Object.keys(architectures).join(", ")}`,
    });
  }
  const name = architectures[type]!;
  const { Args } = await architecture(type);
  const settings = parseArgs(Settings, { ...config, ...(parseArgs(Args, config, folder) as object) }, folder);
  const family = families[name]!;
  const heads = settings.num_attention_heads;
  const kvHeads = settings.num_key_value_heads ?? heads;
  const headDim = settings.head_dim ?? settings.hidden_size / heads;
  const base = settings.rope_theta ?? settings.rope_parameters?.rope_theta ?? (type === "mixtral" ? 1e6 : 1e4);
  // Mixtral's positions are never stretched, whatever the configuration says.
  const scaling = type === "mixtral" ? null : (settings.rope_scaling ?? settings.rope_parameters ?? null);
  const stretched = scalingOf(scaling, headDim, base);

  const values: Record<string, GgufField | null> = {
    context_length: ["uint32", settings.max_position_embeddings],
    embedding_length: ["uint32", settings.hidden_size],
    block_count: ["uint32", settings.num_hidden_layers],
    feed_forward_length: ["uint32", settings.intermediate_size],
    "rope.dimension_count": ["uint32", headDim],
    "attention.head_count": ["uint32", heads],
    "attention.head_count_kv": ["uint32", kvHeads],
    "attention.key_length": ["uint32", headDim],
    "attention.value_length": ["uint32", headDim],
    "attention.layer_norm_rms_epsilon": ["float32", settings.rms_norm_eps],
    "rope.freq_base": ["float32", base],
    expert_count: settings.num_local_experts ? ["uint32", settings.num_local_experts] : null,
    expert_used_count: settings.num_experts_per_tok ? ["uint32", settings.num_experts_per_tok] : null,
    ...stretched.fields,
    ...(name === "gemma3" ? gemma3(settings, headDim) : {}),
  };
  if (name !== "gemma3" && settings.layer_types?.includes("sliding_attention")) {
    refuse('"layer_types" with sliding_attention');
  }
  const turns: Readonly<Record<string, number>> =
    family.turnsPairs && !settings.rope_traditional ? { q_proj: heads, k_proj: kvHeads } : {};
  return {
    architecture: name,
    family,
    fields: Object.entries(values).flatMap(([key, field]) => (field ? [[`${name}.${key}`, field]] : [])),
    ropeFactors: stretched.factors,
    change(parameter, weight) {
      const layer = parameter.split(".").at(-2)!;
      if (family.normOffset && layer.endsWith("norm")) return weight.astype("float32").add(family.normOffset);
      return Object.hasOwn(turns, layer) ? pairUp(weight, turns[layer]!) : weight;
    },
  };
}

function refuse(what: string): never {
  throw new UserError(`this model cannot be saved as GGUF: ${what} has no place there`, {
    code: ExitCode.notFound,
    hint: "Save the model without a GGUF file.",
  });
}

/** Rows of each head from halves to pairs (0, D/2, 1, D/2 + 1, …); a bias's numbers too. */
function pairUp(x: Tensor, heads: number): Tensor {
  const [rows, ...rest] = x.shape as [number, ...number[]];
  return x
    .reshape(heads, 2, rows / heads / 2, ...rest)
    .swapaxes(1, 2)
    .reshape(rows, ...rest);
}

/** How positions are stretched: metadata, or a tensor of factors. */
function scalingOf(
  scaling: RopeScaling | null,
  headDim: number,
  base: number,
): { fields: Record<string, GgufField>; factors: number[] | null } {
  const type = scaling?.type || (scaling?.rope_type ?? "default");
  const none = { fields: {}, factors: null };
  switch (type) {
    case "default":
      return none;
    case "linear":
    case "yarn": {
      const fields: Record<string, GgufField> = {
        "rope.scaling.type": ["string", type],
        "rope.scaling.factor": ["float32", scaling?.factor ?? 1],
      };
      const original = scaling?.original_max_position_embeddings;
      if (original) fields["rope.scaling.original_context_length"] = ["uint32", original];
      return { fields, factors: null };
    }
    case "llama3": {
      const bands = {
        factor: scaling!.factor ?? 1,
        low_freq_factor: scaling!.low_freq_factor ?? usualBands.low_freq_factor,
        high_freq_factor: scaling!.high_freq_factor ?? usualBands.high_freq_factor,
        original_max_position_embeddings:
          scaling!.original_max_position_embeddings ?? usualBands.original_max_position_embeddings,
      };
      return { fields: {}, factors: stretches(headDim, base, bands) };
    }
    default:
      return refuse(`a rotation of type "${type}"`);
  }
}

/** llama.cpp knows the scale of Gemma 3's attention, and takes no other. */
function gemma3(settings: Settings, headDim: number): Record<string, GgufField> {
  const { query_pre_attn_scalar: scalar, sliding_window: window, sliding_window_pattern: pattern } = settings;
  const isLargest = settings.num_hidden_layers === largestGemma3;
  const expected = isLargest ? settings.hidden_size / settings.num_attention_heads : headDim;
  if (scalar !== expected) refuse(`"query_pre_attn_scalar" ${scalar} (not ${expected})`);
  return {
    ...(pattern === usualPattern ? {} : { "attention.sliding_window_pattern": ["uint32", pattern!] }),
    "attention.sliding_window": ["uint32", window!],
    "rope.freq_base_swa": ["float32", settings.rope_local_base_freq ?? 10_000],
  };
}
