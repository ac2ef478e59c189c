/** GGUF's architectures and ours: the configuration that a file's metadata come to. */
import { ExitCode, UserError } from "../../errors";
import type { JsonObject } from "../../json-file";
import type { ModelConfig } from "../config";
import type { GgufHeader } from "./header";
import { Metadata } from "./metadata";
import { TensorNames } from "./names";

/** What differs between the architectures. */
export interface Family {
  modelType: string;
  names: TensorNames;
  /** Rows of queries and keys lie as pairs that turn together, not as halves. */
  turnsPairs: boolean;
  /** What is added to the weights of norms: the checkpoint's are centered on zero, GGUF's on one. */
  normOffset: 0 | 1;
}

const plain: Omit<Family, "modelType"> = {
  names: new TensorNames({ hasSandwichNorms: false }),
  turnsPairs: false,
  normOffset: 0,
};

/** By `general.architecture`. */
export const families: Readonly<Record<string, Family>> = {
  gemma3: {
    modelType: "gemma3_text",
    names: new TensorNames({ hasSandwichNorms: true }),
    turnsPairs: false,
    normOffset: 1,
  },
  llama: { ...plain, modelType: "llama", turnsPairs: true },
  qwen2: { ...plain, modelType: "qwen2" },
  qwen3: { ...plain, modelType: "qwen3" },
};

/** A file's architecture: how its configuration and its tensors are ours. */
export interface GgufArchitecture {
  config: ModelConfig;
  family: Family;
}

/** @throws UserError for an architecture that is not supported, or metadata that is missing or wrong */
export function architectureOf(header: GgufHeader, path: string): GgufArchitecture {
  const metadata = new Metadata(header.metadata, path);
  const name = metadata.text("general.architecture") ?? metadata.wrong('"general.architecture" is missing');
  const family = Object.hasOwn(families, name) ? families[name]! : refuse(name);
  const field = (key: string) => `${name}.${key}`;

  const width = metadata.need(field("embedding_length"));
  const heads = metadata.need(field("attention.head_count"));
  const kvHeads = metadata.number(field("attention.head_count_kv")) ?? heads;
  const headDim = metadata.number(field("attention.key_length")) ?? width / heads;
  const turning = metadata.number(field("rope.dimension_count")) ?? headDim;
  if (turning !== headDim) metadata.wrong(`${turning} of the ${headDim} features of a head turn; mlxlm needs all to`);
  const vocabulary =
    header.tensors.get("token_embd.weight")?.shape[0] ?? metadata.wrong("there is no token_embd.weight");
  const has = (tensor: string) => header.tensors.has(`blk.0.${tensor}`);
  const experts = metadata.number(field("expert_count")) ?? 0;
  const base = metadata.number(field("rope.freq_base")) ?? 10_000;

  const config: ModelConfig = {
    model_type: name === "llama" && experts > 0 ? "mixtral" : family.modelType,
    hidden_size: width,
    num_hidden_layers: metadata.need(field("block_count")),
    intermediate_size: metadata.need(field("feed_forward_length")),
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    head_dim: headDim,
    rms_norm_eps: precise(metadata.need(field("attention.layer_norm_rms_epsilon"))),
    vocab_size: vocabulary,
    max_position_embeddings: metadata.need(field("context_length")),
    rope_theta: precise(base),
    rope_scaling: ropeScaling(metadata, field),
    tie_word_embeddings: !header.tensors.has("output.weight"),
    attention_bias: has("attn_q.bias"),
    mlp_bias: has("ffn_down.bias"),
    ...(experts > 0
      ? { num_local_experts: experts, num_experts_per_tok: metadata.need(field("expert_used_count")) }
      : {}),
    ...(name === "gemma3" ? gemma3(metadata, field, { width, heads, headDim }) : {}),
    ...tokenIds(metadata),
  };
  for (const [key, value] of Object.entries(config)) if (value === null || value === undefined) delete config[key];
  return { config, family };
}

function refuse(name: string): never {
  throw new UserError(`GGUF files of the architecture "${name}" are not supported`, {
    code: ExitCode.notFound,
    hint: `mlxlm reads those of ${Object.keys(families).join(", ")}; of other models, take the safetensors.`,
  });
}

/** Layers of Gemma 3 27B: the one size whose attention is not scaled by its heads' width. */
export const largestGemma3 = 62;

/** Every sixth layer attends to all. */
export const usualPattern = 6;

/** What the metadata leave to those who know Gemma 3. */
function gemma3(
  metadata: Metadata,
  field: (key: string) => string,
  { width, heads, headDim }: { width: number; heads: number; headDim: number },
): JsonObject {
  const isLargest = metadata.number(field("block_count")) === largestGemma3;
  return {
    sliding_window: metadata.need(field("attention.sliding_window")),
    sliding_window_pattern: metadata.number(field("attention.sliding_window_pattern")) ?? usualPattern,
    query_pre_attn_scalar: isLargest ? width / heads : headDim,
    rope_theta: precise(metadata.number(field("rope.freq_base")) ?? 1_000_000),
    rope_local_base_freq: precise(metadata.number(field("rope.freq_base_swa")) ?? 10_000),
  };
}

/** The number that was meant by a float32: 1e-5, not 9.999999747378752e-6. */
const precise = (value: number) => Number(Math.fround(value).toPrecision(7));

function ropeScaling(metadata: Metadata, field: (key: string) => string): JsonObject | undefined {
  const type = metadata.text(field("rope.scaling.type"));
  const factor = metadata.number(field("rope.scaling.factor"));
  if (type === undefined || type === "none" || factor === undefined || factor === 1) return undefined;
  if (type === "linear") return { type, factor };
  if (type !== "yarn") metadata.wrong(`"${field("rope.scaling.type")}" is "${type}"; mlxlm reads linear and yarn`);
  return {
    type,
    factor,
    original_max_position_embeddings: metadata.number(field("rope.scaling.original_context_length")),
  };
}

function tokenIds(metadata: Metadata): JsonObject {
  const id = (name: string) => metadata.number(`tokenizer.ggml.${name}_token_id`);
  const ends = [id("eos"), id("eot"), id("eom")].filter((end) => end !== undefined);
  return {
    bos_token_id: id("bos"),
    eos_token_id: ends.length > 1 ? [...new Set(ends)] : ends[0],
    pad_token_id: id("padding"),
  };
}
