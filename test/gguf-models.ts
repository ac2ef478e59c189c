/**
 * Tiny models as GGUF files, which test/oracle/gguf_models.py shows to llama.cpp: `bun test/gguf-models.ts FOLDER`. Their
 * configurations are those of the models' fixtures, changed where llama.cpp has no form for a setting.
 */
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type ExportOptions, exportGguf } from "../src/convert/gguf/export";
import { readGgufHeader } from "../src/convert/gguf/header";
import { saveModel } from "../src/convert/save";
import type { Tensor } from "../src/mlx";
import * as mx from "../src/mlx";
import type { LanguageModel } from "../src/models";
import { architecture } from "../src/models/registry";
import { fixture } from "./parity/fixtures";
import { type FormulaModel, formulaModel } from "./parity/formula-model";
import { uniform } from "./parity/weights";

type Settings = Record<string, unknown>;

const llama3 = {
  rope_type: "llama3",
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 8192,
};

/** As the published model has it: a wave is stretched whole or not at all. */
const llama4 = { ...llama3, factor: 16, high_freq_factor: 1 };

/**
 * What is changed of a fixture's configuration, or of the part of it that is the language model's. Names begin with the
 * fixture's.
 */
const cases: Record<string, Settings> = {
  afmoe: {
    layer_types: ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"],
  },
  apertus: { rope_scaling: llama3 },
  bailing_moe: {},
  "bailing_moe of Ling 1": {
    use_qk_norm: false,
    use_qkv_bias: false,
    first_k_dense_replace: 0,
    score_function: "softmax",
    n_group: 1,
    topk_group: 1,
    moe_router_enable_expert_bias: false,
    partial_rotary_factor: 1,
  },
  bailing_moe_v3: {},
  "bailing_moe_v3 in groups of three": { num_hidden_layers: 7, layer_group_size: 3, q_lora_rank: null },
  "bailing_moe_v3 with bounds": {
    expert_swiglu_limit_list: [null, 0.5, 0, 0.25],
    share_expert_swiglu_limit_list: [0, 0.25, 0.5, null],
  },
  bitnet: {
    model_type: "bitnet",
    hidden_act: "silu",
    num_key_value_heads: 4,
    tie_word_embeddings: true,
    attention_bias: false,
    mlp_bias: false,
  },
  cohere: { use_qk_norm: false },
  "cohere with norms": { num_hidden_layers: 64, hidden_size: 32, intermediate_size: 32 },
  cohere2: {},
  cohere2_moe: { tie_word_embeddings: true },
  "cohere2_moe by softmax, with LayerNorm": {
    expert_selection_fn: "softmax",
    rms_norm_eps: null,
    num_shared_experts: 0,
    layer_types: null,
  },
  dbrx: {},
  deepseek: { num_key_value_heads: 2 },
  deepseek_v2: { topk_method: "greedy", n_group: 1, topk_group: 1 },
  deepseek_v2_lite: { num_hidden_layers: 27 },
  deepseek_v3: {},
  // Of few heads, scores of zero are many: which of them are chosen is then chance.
  deepseek_v32: { index_head_dim: 128, index_n_heads: 16 },
  deepseek_v4: { hc_mult: 4, compress_rates: null, index_head_dim: 128, index_n_heads: 16, attention_bias: false },
  dots1: { num_key_value_heads: 4 },
  ernie4_5: { use_bias: false },
  ernie4_5_moe: {},
  exaone: { rope_scaling: llama3 },
  exaone4: { sliding_window: null, sliding_window_pattern: null, rope_scaling: llama3 },
  "exaone4 with windows": { num_hidden_layers: 64, sliding_window_pattern: "LLLG", rope_scaling: llama3 },
  exaone_moe: {},
  falcon_h1: { tie_word_embeddings: false },
  falcon_mamba: { mixer_rms_eps: 1e-5 },
  gemma: {},
  gemma2: {},
  gemma3: {},
  gemma3_text: {},
  gemma3n: {
    laurel_rank: 64,
    hidden_size_per_layer_input: 256,
    vocab_size_per_layer_input: 256,
    num_hidden_layers: 25,
    num_kv_shared_layers: 5,
    intermediate_size: 960,
    layer_types: Array.from({ length: 25 }, (_, i) => (i % 5 === 4 ? "full_attention" : "sliding_attention")),
    activation_sparsity_pattern: Array.from({ length: 25 }, (_, i) => (i < 10 ? 0.95 : 0)),
  },
  gemma4: {},
  gemma4_text: {},
  glm: {},
  "glm that turns half of a head": { partial_rotary_factor: 0.5 },
  glm4: {},
  glm4_moe: {},
  glm4_moe_lite: { rms_norm_eps: 1e-6 },
  glm5_next: { hc_mult: 4, linear_num_heads: 4, index_head_dim: 128, index_n_heads: 16 },
  glm_moe_dsa: { index_head_dim: 128, index_n_heads: 16 },
  gpt2: {},
  "gpt2 with a head of its own": { tie_word_embeddings: false },
  gpt_bigcode: {},
  "gpt_bigcode of as many heads": { multi_query: false, tie_word_embeddings: false },
  gpt_neox: {},
  "gpt_neox one after the other": { use_parallel_residual: false },
  "glm_moe_dsa with shared choices": {
    index_head_dim: 128,
    index_n_heads: 16,
    num_hidden_layers: 5,
    indexer_types: ["full", "shared", "full", "shared", "shared"],
  },
  gpt_oss: {},
  granite: {},
  granitemoe: {},
  granitemoehybrid: { mamba_n_heads: 8 },
  granitemoehybrid_dense: { mamba_n_heads: 8 },
  helium: { attention_bias: true },
  hf_olmo: {},
  hunyuan: { use_cla: false, moe_topk: 2 },
  hunyuan_v1_dense: {},
  hy_v4: { index_head_dim: 128, index_n_heads: 16, swiglu_limit: 0.5 },
  internlm2: { bias: false, rope_scaling: { type: "dynamic", factor: 2 } },
  internlm3: { rope_scaling: { rope_type: "dynamic", factor: 6 } },
  "internlm3 with few biases": { bias: false },
  jamba: {},
  k2_horizon: {},
  kimi_k25: { q_lora_rank: 32 },
  kimi_k3: {
    max_position_embeddings: 2048,
    linear_attn_config: {
      ...{ kda_layers: [1, 2, 4], full_attn_layers: [3], num_heads: 4, head_dim: 32 },
      ...{ short_conv_kernel_size: 4, gate_lower_bound: -5, use_full_rank_gate: true },
    },
  },
  kimi_linear: {
    linear_attn_config: { kda_layers: [1, 2, 4], full_attn_layers: [3], num_heads: 4, head_dim: 32 },
  },
  laguna: { mlp_layer_types: ["dense", "sparse", "sparse", "sparse"], moe_router_logit_softcapping: 0 },
  kimi_vl: { num_hidden_layers: 27 },
  lfm2: { conv_bias: false },
  "lfm2-vl": {},
  lfm2_moe: { routed_scaling_factor: 1 },
  llama: {},
  llama4: { attention_chunk_size: 8192, floor_scale: 8192, attn_scale: 0.1, rope_scaling: llama4 },
  llama_bias: { rope_traditional: false },
  llama_llama3: { rope_scaling: llama3 },
  llava: {},
  mamba: {},
  mamba2: { n_groups: 1 },
  mellum: {
    rope_parameters: {
      full_attention: { rope_type: "yarn", factor: 4, original_max_position_embeddings: 64, rope_theta: 500_000 },
      sliding_attention: { rope_type: "default", rope_theta: 500_000 },
    },
  },
  mimo: {},
  mimo_v2: { sliding_window_size: 20 },
  mimo_v2_flash: { sliding_window_size: 20 },
  minicpm: {},
  minicpm3: {
    dim_model_base: 256,
    scale_emb: 12,
    rms_norm_eps: 1e-5,
    rope_scaling: {
      type: "longrope",
      original_max_position_embeddings: 64,
      short_factor: [1, 1, 1.1, 1.2, 1.3, 1.5, 1.75, 2],
      long_factor: [1, 1.25, 1.5, 2, 3, 4.5, 6, 8],
    },
  },
  minimax: {},
  minimax_m3_vl: {
    sparse_attention_config: {
      ...{ sparse_num_index_heads: 2, sparse_index_dim: 16, sparse_block_size: 8, sparse_topk_blocks: 4 },
      ...{ sparse_local_block: 1, sparse_attention_freq: [0, 1, 1, 1] },
    },
  },
  ministral3: { sliding_window: null, layer_types: null },
  mistral3: {},
  mistral4: { n_group: 1, topk_group: 1 },
  mixtral: {},
  muse_glimmer: {},
  nanbeige: {},
  nemotron: {},
  // llama.cpp has no form for linear layers in the place of others.
  "nemotron-nas": {
    block_configs: [
      { attention: { n_heads_in_group: 2 }, ffn: { ffn_mult: 2 } },
      { attention: { no_op: true }, ffn: { ffn_mult: 4.5 } },
      { attention: { no_op: true }, ffn: { no_op: true } },
      { attention: { n_heads_in_group: 4 }, ffn: { ffn_mult: 7 } },
    ],
    rope_scaling: llama3,
  },
  nemotron_h: { hybrid_override_pattern: "M-M*-" },
  "nemotron_h with experts": { hybrid_override_pattern: "MEM*E", n_group: 1 },
  olmo: {},
  olmo2: {},
  olmo3: {},
  olmoe: { num_key_value_heads: 4 },
  openelm: { share_input_output_layers: true },
  phi: {},
  phi3: {},
  phi3_longrope: { original_max_position_embeddings: 64 },
  phimoe: {
    original_max_position_embeddings: 64,
    num_experts_per_tok: 1,
    router_jitter_noise: 0.01,
    num_local_experts: 4,
    num_hidden_layers: 2,
  },
  pixtral: {},
  plamo: { max_position_embeddings: 4096 },
  plamo2: { attention_window_size: 2048, full_attention_idx: [] },
  // llama.cpp's windows are a token shorter.
  plamo3: { window_size: 200 },
  qwen: {},
  qwen2: {},
  qwen2_moe: {},
  qwen2_vl: {},
  qwen3: {},
  qwen3_5: { linear_value_head_dim: 16 },
  qwen3_5_moe: { linear_value_head_dim: 16 },
  qwen3_moe: { mlp_only_layers: [] },
  qwen3_next: { mlp_only_layers: [], linear_value_head_dim: 16 },
  // llama.cpp does not turn pairs that no coordinate has.
  qwen3_vl: { rope_scaling: { rope_type: "default", mrope_section: [6, 5, 5], mrope_interleaved: true } },
  qwen3_vl_moe: {},
  qwen3_yarn: {},
  "qwen3_yarn with a factor": {
    rope_scaling: { type: "yarn", factor: 4, original_max_position_embeddings: 32, attention_factor: 0.8 },
  },
  // llama.cpp has one table of n-grams.
  qwen4_exp: { ple_layer_ids: [1], ple_embed_dim: 64, vocab_size: 2048 },
  rwkv7: {},
  seed_oss: {},
  smollm3: {},
  solar_open: {},
  spark2_5: { attention_bias: false },
  stablelm: {},
  "stablelm side by side": { use_parallel_residual: true, qk_layernorm: false },
  starcoder2: {},
  step3p5: { rope_scaling: llama3 },
  step3p7: { rope_scaling: llama3 },
  talkie: {},
  youtu_llm: {},
};

/** Fixtures of models that have none of their own. */
const relatives: Record<string, string> = { bitnet: "llama" };

/** Models whose weights are not those of the formula. */
const changed: Record<string, (model: LanguageModel) => void> = {
  /** Ternary codes, four to a byte, in the place of numbers. */
  bitnet(model) {
    const shapes = new Map(model.namedParameters().map(([name, { shape }]) => [name, shape]));
    mx.scope(() => {
      const own = [...shapes].flatMap(([name, [rows, columns]]): [string, Tensor][] => {
        if (name.endsWith("weight_scale")) return [[name, mx.array([1.5 / Math.sqrt(columns ?? 64)])]];
        if (!shapes.has(`${name}_scale`)) return [];
        const bytes = Array.from(uniform(name, rows! * columns!), (u) =>
          [1, 4, 16, 64].reduce((byte, place, i) => byte + place * (Math.floor((u + 1) * 3 ** (i + 4)) % 3), 0),
        );
        return [[name, mx.array(bytes, "uint8", [rows!, columns!])]];
      });
      model.loadWeights(own, { strict: false });
    });
    mx.eval(model.parameters());
  },
  /** Gains of norms ahead of scores are ones: files have their products with what follows. */
  kimi_k3(model) {
    const norms = model.namedParameters().filter(([name]) => name.endsWith("_res_norm.weight"));
    mx.scope(() => {
      const ones = norms.map(([name, x]): [string, Tensor] => [name, mx.ones(x.shape)]);
      model.loadWeights(ones, { strict: false });
    });
    mx.eval(model.parameters());
  },
  /** Hidden states have a mean of zero: llama.cpp has RMSNorm where Phi-3.5-MoE has LayerNorm, which is then the same. */
  phimoe(model) {
    const around = (x: Tensor, axis: number) => x.subtract(x.mean({ axis, keepdims: true }));
    mx.scope(() => {
      const centered = model.namedParameters().flatMap(([name, x]): [string, Tensor][] => {
        if (name.endsWith("embed_tokens.weight")) return [[name, around(x, -1)]];
        if (/(down_proj|o_proj)\.weight$/.test(name)) return [[name, around(x, -2)]];
        return name.endsWith("o_proj.bias") ? [[name, around(x, 0)]] : [];
      });
      model.loadWeights(centered, { strict: false });
    });
    mx.eval(model.parameters());
  },
};

export const caseNames: readonly string[] = Object.keys(cases);

/** Longer than windows and than contexts before positions were stretched. */
export const prompt: readonly number[] = Array.from({ length: 72 }, (_, i) => (i * 37 + 7) % 251);

/** How many tokens are generated. */
export const steps = 12;

const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };

/** llama.cpp asks some of these of every Phi-3. */
const vocab = { a: 0, b: 1, ab: 2, "<unk>": 3, "<s>": 4, "</s>": 5, "<|endoftext|>": 6 };

const tokenizer = {
  version: "1.0",
  added_tokens: [],
  pre_tokenizer: byteLevel,
  decoder: byteLevel,
  model: { type: "BPE", vocab, merges: [["a", "b"]] },
};

interface WriteOptions {
  type?: ExportOptions["type"];
  /** Settings beside those of the case. */
  settings?: Settings;
}

/** The model of a case, in a folder of its own, and its GGUF file. */
export async function writeCase(
  name: string,
  folder: string,
  { type = "F32", settings = {} }: WriteOptions = {},
): Promise<{ folder: string; file: string }> {
  const { config: original, salt } = fixture<FormulaModel>(`models/${fixtureOf(name)}.json`);
  const text = original.text_config as Settings | undefined;
  const own = { ...cases[name], ...settings };
  const config = text
    ? { ...original, text_config: { ...text, ...own } }
    : { ...original, max_position_embeddings: original.max_position_embeddings ?? 256, ...own };
  const [source, target] = [join(folder, `${name}.source`), join(folder, name)];
  mkdirSync(source, { recursive: true });
  writeFileSync(join(source, "tokenizer.json"), JSON.stringify(tokenizer));
  const model = await formulaModel({ config, salt, weights: await shapesOf(config) });
  changed[name.split(" ")[0]!]?.(model);
  await saveModel(target, model, config, { source });
  await exportGguf(target, `${target}.gguf`, { type });
  return { folder: target, file: `${target}.gguf` };
}

const fixtureOf = (name: string) => {
  const type = name.split(" ")[0]!;
  return relatives[type] ?? type;
};

/** Of the model's own parameters: the configuration may differ from the fixture's. */
async function shapesOf(config: FormulaModel["config"]): Promise<Record<string, number[]>> {
  const { Args, Model } = await architecture(config.model_type);
  const model: LanguageModel = new Model(Args.parse(config));
  const shapes = model.namedParameters().map(([name, { shape }]): [string, number[]] => [name, [...shape]]);
  model.dispose();
  return Object.fromEntries(shapes);
}

/** A hash of what llama.cpp reads of a file: tensors and the architecture's metadata. */
export async function fingerprint(file: string): Promise<string> {
  const bytes = readFileSync(file);
  const { tensors, metadata } = await readGgufHeader(file);
  const architecture = String(metadata.get("general.architecture"));
  const hash = createHash("sha256");
  for (const [key, value] of [...metadata].sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (key.startsWith(`${architecture}.`)) hash.update(JSON.stringify([key, value]));
  }
  for (const [name, { type, shape, start, bytes: length }] of [...tensors].sort(([a], [b]) => (a < b ? -1 : 1))) {
    hash.update(JSON.stringify([name, type.name, shape])).update(bytes.subarray(start, start + length));
  }
  return hash.digest("hex").slice(0, 16);
}

if (import.meta.main) {
  const [folder, ...names] = process.argv.slice(2);
  const written: Record<string, string> = {};
  for (const name of names.length > 0 ? names : caseNames) {
    written[name] = await fingerprint((await writeCase(name, folder!)).file);
  }
  writeFileSync(join(folder!, "cases.json"), JSON.stringify({ prompt, steps, files: written }));
}
