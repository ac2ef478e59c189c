/** Language models within checkpoints that also see: which configurations and which names they take. */
import { describe, expect, test } from "bun:test";
import * as mx from "../mlx";
import { createModel } from ".";

const text = {
  hidden_size: 16,
  num_hidden_layers: 1,
  intermediate_size: 32,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  vocab_size: 32,
  rms_norm_eps: 1e-5,
  tie_word_embeddings: false,
};

const mrope = { type: "mrope", mrope_section: [1, 1, 2] };
const qwen3 = { head_dim: 8, max_position_embeddings: 64, rope_theta: 1000 };
const lfm2 = {
  ...{ vocab_size: 32, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, block_ff_dim: 32 },
  ...{ norm_eps: 1e-5, conv_bias: false, conv_L_cache: 3, layer_types: ["full_attention"] },
};

const configs: Record<string, object> = {
  "Qwen 2 VL, with the fields at the top": { model_type: "qwen2_vl", ...text, rope_scaling: mrope },
  "Qwen 2.5 VL": { model_type: "qwen2_5_vl", text_config: { ...text, rope_scaling: mrope } },
  "Qwen 3 VL": { model_type: "qwen3_vl", text_config: { ...text, ...qwen3 } },
  "LFM 2 VL, by the name that transformers has": { model_type: "lfm2_vl", text_config: lfm2 },
};

/** Parts that are left out, by the names that checkpoints give them. */
const others = ["visual.blocks.0.norm1.weight", "model.visual.merger.mlp.0.weight", "vision_tower.head.weight"].concat(
  ["model.vision_tower.head.weight", "multi_modal_projector.linear_1.weight"],
  ["model.multi_modal_projector.linear_1.weight"],
);

describe("the language model of", () => {
  for (const [name, config] of Object.entries(configs)) {
    test(name, async () => {
      const model = await createModel(config as Record<string, unknown>, "a test");
      mx.scope(() => {
        const own = model.namedParameters().map(([path]) => path);
        const stem = "language_model.";
        expect(own.every((path) => path.startsWith(`${stem}model.`) || path === `${stem}lm_head.weight`)).toBe(true);
        const forms = [
          own,
          own.map((path) => path.slice(stem.length)),
          own.map((path) =>
            path.replace(`${stem}model.`, "model.language_model.").replace(`${stem}lm_head`, "lm_head"),
          ),
        ];
        for (const names of forms) {
          const entries = [...names, ...others].map((path): [string, mx.Tensor] => [path, mx.zeros([1])]);
          expect([...model.sanitize(new Map(entries)).keys()].sort()).toEqual([...own].sort());
        }
        expect(model.forward(mx.array([[1, 2, 3]], "uint32")).shape).toEqual([1, 3, 32]);
      });
      model.dispose();
    });
  }
});
