/** From GGUF's architectures to ours: config.json and the names of tensors. */
import { ExitCode, UserError } from "../../errors";
import type { ModelConfig } from "../config";
import type { JsonObject } from "../json-file";
import type { GgufHeader } from "./header";
import { Metadata } from "./metadata";

/** What differs between the architectures that can be read. */
interface Family {
  modelType: string;
  /** Rows of queries and keys lie as pairs that turn together, not as halves. */
  turnsPairs?: boolean;
}

const families: Readonly<Record<string, Family>> = {
  llama: { modelType: "llama", turnsPairs: true },
  qwen2: { modelType: "qwen2" },
  qwen3: { modelType: "qwen3" },
};

/** A file's architecture: how its configuration and its tensors are ours. */
export interface GgufArchitecture {
  config: ModelConfig;
  /** Heads whose rows are to be brought into order, by the projection's name. */
  pairedHeads: Readonly<Record<string, number>>;
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
    ...tokenIds(metadata),
  };
  for (const [key, value] of Object.entries(config)) if (value === null || value === undefined) delete config[key];
  return { config, pairedHeads: family.turnsPairs ? { q_proj: heads, k_proj: kvHeads } : {} };
}

function refuse(name: string): never {
  throw new UserError(`GGUF files of the architecture "${name}" are not supported`, {
    code: ExitCode.notFound,
    hint: `mlxlm reads those of ${Object.keys(families).join(", ")}; of other models, take the safetensors.`,
  });
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

/** Tensors outside the layers. */
const outer: Readonly<Record<string, string>> = {
  token_embd: "model.embed_tokens",
  output_norm: "model.norm",
  output: "lm_head",
};

/** Parts of a layer. */
const inner: Readonly<Record<string, string>> = {
  attn_norm: "input_layernorm",
  attn_q: "self_attn.q_proj",
  attn_k: "self_attn.k_proj",
  attn_v: "self_attn.v_proj",
  attn_output: "self_attn.o_proj",
  attn_q_norm: "self_attn.q_norm",
  attn_k_norm: "self_attn.k_norm",
  ffn_norm: "post_attention_layernorm",
  ffn_gate: "mlp.gate_proj",
  ffn_up: "mlp.up_proj",
  ffn_down: "mlp.down_proj",
  ffn_gate_inp: "block_sparse_moe.gate",
  ffn_gate_exps: "block_sparse_moe.switch_mlp.gate_proj",
  ffn_up_exps: "block_sparse_moe.switch_mlp.up_proj",
  ffn_down_exps: "block_sparse_moe.switch_mlp.down_proj",
};

/** Experts that are tensors of their own. */
const expert: Readonly<Record<string, string>> = { ffn_gate: "w1", ffn_down: "w2", ffn_up: "w3" };

/**
 * A tensor's path in the checkpoint and the kind of its parameter: `blk.3.attn_q.weight` →
 * `["model.layers.3.self_attn.q_proj", "weight"]`; null for a name that no architecture has.
 */
export function pathOf(name: string): [path: string, kind: "weight" | "bias"] | null {
  const parts = /^(?:blk\.(\d+)\.)?([a-z_]+)(?:\.(\d+))?\.(weight|bias)$/.exec(name);
  if (!parts) return null;
  const [, layer, part, index, kind] = parts as unknown as [string, string?, string?, string?, ("weight" | "bias")?];
  const known = (names: Readonly<Record<string, string>>) => (Object.hasOwn(names, part!) ? names[part!] : undefined);
  const place = layer === undefined ? known(outer) : index === undefined ? known(inner) : known(expert);
  if (place === undefined || (layer === undefined && index !== undefined)) return null;
  if (layer === undefined) return [place, kind!];
  const own = index === undefined ? place : `block_sparse_moe.experts.${index}.${place}`;
  return [`model.layers.${layer}.${own}`, kind!];
}
