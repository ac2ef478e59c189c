/** Settings that llama.cpp's files have no form for, or that it computes otherwise: they are refused, by name. */
import { expect, test } from "bun:test";
import { fixture } from "../../../test/parity/fixtures";
import type { FormulaModel } from "../../../test/parity/formula-model";
import { exportPlan } from "./export-plan";

type Settings = Record<string, unknown>;

/** Changes of a fixture's configuration by its name, and what is said of them. */
const refused: readonly (readonly [name: string, settings: Settings, problem: RegExp])[] = [
  ["kimi_k3", {}, /"num_heads" 2 of delta attention \(not 4\)/],
  ["kimi_k3", { num_attention_heads: 2, q_lora_rank: null }, /"q_lora_rank" null/],
  ["mellum", { norm_topk_prob: false }, /"norm_topk_prob" false/],
  ["mellum", {}, /a "rope_theta" of sliding layers alone/],
  ["minicpm3", {}, /"scale_emb" 3 \(not 12\)|"dim_model_base" 32 \(not 256\)/],
  [
    "mistral3",
    {
      rope_parameters: {
        rope_type: "yarn",
        original_max_position_embeddings: 16,
        mscale: 2,
        mscale_all_dim: 1,
        llama_4_scaling_beta: 0,
      },
    },
    /"mscale" 2/,
  ],
  ["minimax_m3_vl", {}, /indexers elsewhere than in the layers with experts/],
  ["minimax_m3_vl", { sparse_attention_config: null }, /a model without an indexer/],
  ["minimax_m3_vl", { use_gemma_norm: false }, /"use_gemma_norm" false/],
  ["muse_glimmer", { post_norm_eps: 1e-5 }, /"post_norm_eps" 0.00001/],
  ["muse_glimmer_tied", { tie_word_embeddings: false }, /"layer_rope_theta"/],
  ["muse_glimmer_tied", {}, /"tie_word_embeddings" true/],
  ["nemotron-nas", {}, /a feed-forward block that is a linear layer|without a feed-forward block/],
  ["nemotron-nas", { hidden_act: "gelu" }, /"hidden_act" "gelu" \(not "silu"\)/],
  ["openelm", {}, /a head that is not the embedding/],
  ["openelm", { share_input_output_layers: true, normalize_qk_projections: false }, /without norms/],
  ["phi", { rope_scaling: { type: "dynamic", factor: 2 } }, /a rotation of type "dynamic"/],
  ["qwen", { kv_channels: 8 }, /"kv_channels" 8 \(not 16\)/],
  ["qwen", { no_bias: false }, /"no_bias" false/],
  ["qwen4_exp", {}, /"ple_layer_ids" with several layers/],
  ["qwen4_exp", { ple_layer_ids: [1] }, /"ple_embed_dim" 128/],
  ["qwen4_exp", { output_gate_type: "silu" }, /"output_gate_type" silu/],
  ["spark2_5", {}, /"attention_bias" true/],
  ["youtu_llm", { rope_scaling: { type: "linear", factor: 2 } }, /a stretched rotation/],
  ["youtu_llm", { attention_bias: true }, /"attention_bias"/],
];

test.each([...refused])("%s %j", async (name, settings, problem) => {
  const { config } = fixture<FormulaModel>(`models/${name}.json`);
  const text = config.text_config as Settings | undefined;
  const changed = text ? { ...config, text_config: { ...text, ...settings } } : { ...config, ...settings };
  await expect(exportPlan(changed, "here")).rejects.toThrow(problem);
  await expect(exportPlan(changed, "here")).rejects.toThrow("this model cannot be saved as GGUF");
});
