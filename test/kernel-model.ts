/** Models that CUDA's kernels for decoding take, and whether this machine has those. */
import { makeReady } from "../src/convert/ready";
import * as mx from "../src/mlx";
import { architecture, createModel, type LanguageModel } from "../src/models";
import { quantize, shardModel } from "../src/nn";

/** Kernels that stream weights are on CUDA, from compute capability 9. */
export const hasKernels = mx.defaultDevice() !== "cpu" && Number(mx.deviceInfo().compute_capability_major ?? 0) >= 9;

export const llama = {
  model_type: "llama",
  hidden_size: 512,
  num_hidden_layers: 3,
  intermediate_size: 1024,
  num_attention_heads: 8,
  num_key_value_heads: 2,
  head_dim: 64,
  rms_norm_eps: 1e-5,
  rope_theta: 10_000,
  vocab_size: 1024,
  max_position_embeddings: 4096,
  tie_word_embeddings: false,
};

export const llama3Scaling = {
  rope_type: "llama3",
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 64,
};

export const alternateWindows = ["sliding_attention", "full_attention", "sliding_attention"];
/** Norms behind its halves, zero-centered; two layers with a window, of which one token drops out for each that comes, to one without. */
export const gemma3 = {
  ...llama,
  model_type: "gemma3_text",
  hidden_size: 576,
  num_attention_heads: 4,
  num_key_value_heads: 1,
  head_dim: 256,
  rms_norm_eps: 1e-6,
  query_pre_attn_scalar: 256,
  sliding_window: 128,
  sliding_window_pattern: 3,
};

/** The same with four experts in every layer. A token takes all: which are chosen must not hang on the last bit. */
export const withExperts = <T extends object>(config: T, inner: number) => ({
  ...config,
  model_type: "qwen3_moe",
  num_experts: 4,
  num_experts_per_tok: 4,
  moe_intermediate_size: inner,
  decoder_sparse_step: 1,
  mlp_only_layers: [],
  norm_topk_prob: true,
});

/** Of random weights in bfloat16, or what the config names, or packed; this rank's part of it where there is a group. */
export async function kernelModel(
  config: { model_type: string; torch_dtype?: mx.Dtype } & Record<string, unknown>,
  packing: { bits: number; groupSize: number } | null,
  group: mx.distributed.Group | null = null,
): Promise<LanguageModel> {
  mx.random.seed(3);
  const model = await createModel(config, "test");
  const dtype = config.torch_dtype ?? "bfloat16";
  mx.scope(() => model.update(model.namedParameters().map(([name, x]) => [name, x.astype(dtype)])));
  if (packing) quantize(model, packing);
  if (group) shardModel(model, group);
  makeReady(model, await architecture(config.model_type));
  return model;
}

/** So many tokens, in an order of the row's. */
export const someTokens = (length: number, row = 0): number[] =>
  Array.from({ length }, (_, i) => (i * 7919 + row * 31) % llama.vocab_size);
