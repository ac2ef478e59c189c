/** Models that are small enough to be made anew for each test. */
import * as mx from "../src/mlx";
import { createModel, type DraftHead, type LanguageModel } from "../src/models";
import type { Trunk } from "../src/models/mtp/draft-head";
import { architecture } from "../src/models/registry";

/** How many tokens they know. */
export const tinyVocabulary = 97;

const llama = {
  model_type: "llama",
  hidden_size: 32,
  num_hidden_layers: 2,
  intermediate_size: 64,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  rms_norm_eps: 1e-5,
  vocab_size: tinyVocabulary,
};

/** A Mamba 2 of the same size. */
export const tinyMamba = {
  model_type: "mamba2",
  num_heads: 4,
  head_dim: 16,
  state_size: 16,
  layer_norm_epsilon: 1e-5,
  conv_kernel: 4,
  n_groups: 2,
  use_bias: false,
  use_conv_bias: true,
  tie_word_embeddings: false,
  time_step_limit: [0, 100],
};

/** A Qwen 3.5 of the same size: three recurrent layers and one of attention. */
export const tinyHybrid = {
  model_type: "qwen3_5",
  num_hidden_layers: 4,
  linear_num_value_heads: 4,
  linear_num_key_heads: 2,
  linear_key_head_dim: 8,
  linear_value_head_dim: 8,
  tie_word_embeddings: true,
};

/** A Llama with random weights, the same for one seed; `overrides` change its configuration. */
export async function tinyModel(overrides: object = {}, { seed = 3 } = {}): Promise<LanguageModel> {
  mx.random.seed(seed);
  const model = await createModel({ ...llama, ...overrides }, "a test");
  mx.eval(model.parameters());
  return model;
}

/** A draft layer with random weights for a `tinyHybrid`. */
export async function tinyDraftHead(model: LanguageModel): Promise<DraftHead> {
  const { Args, mtp } = await architecture(tinyHybrid.model_type);
  const { language_model: trunk } = model as LanguageModel & { language_model: Trunk };
  return mx.scope(() => mtp!.head(trunk, Args.parse({ ...llama, ...tinyHybrid }), 1));
}

/** Six layers, the last three of which have no keys and values of their own. */
export const tinySharing = {
  model_type: "gemma4_text",
  num_hidden_layers: 6,
  head_dim: 8,
  global_head_dim: 16,
  num_kv_shared_layers: 3,
  hidden_size_per_layer_input: 8,
  sliding_window: 4,
  sliding_window_pattern: 3,
};
