import { describe, expect, test } from "bun:test";
import { fixture } from "../../test/parity/fixtures";
import { tinyMamba } from "../../test/tiny-model";
import { createModel } from ".";
import { withOlderFields } from "./older-fields";

describe("older fields beside the newer ones", () => {
  const cases: [string, Record<string, unknown>, Record<string, unknown>][] = [
    [
      "of one set of rotary settings",
      { rope_parameters: { rope_theta: 500, partial_rotary_factor: 0.5 } },
      { rope_theta: 500, partial_rotary_factor: 0.5, rotary_emb_base: 500, rotary_pct: 0.5 },
    ],
    ["of sets by type of layer: none", { rope_parameters: { full_attention: { rope_theta: 500 } } }, {}],
    ["of experts", { num_local_experts: 8 }, { num_experts: 8 }],
    ["of experts the other way", { num_experts: 8, num_local_experts: null }, { num_local_experts: 8 }],
    ["what stands there stays", { num_experts: 8, num_local_experts: 6 }, {}],
    ["of dense layers ahead", { mlp_layer_types: ["dense", "dense", "sparse"] }, { first_k_dense_replace: 2 }],
    ["of none ahead", { mlp_layer_types: ["sparse", "sparse"] }, { first_k_dense_replace: 0 }],
    ["of layers that take turns: none", { mlp_layer_types: ["dense", "sparse", "dense"] }, {}],
    ["no window", { sliding_window: 0 }, { sliding_window: null }],
    [
      "of Gemma 4's full layers",
      {
        per_layer_config: { 1: { head_dim: 32, num_key_value_heads: 1 }, 3: { head_dim: 32, num_key_value_heads: 1 } },
      },
      { global_head_dim: 32, num_global_key_value_heads: 1 },
    ],
    ["of layers that differ: none", { per_layer_config: { 1: { head_dim: 32 }, 3: { head_dim: 16 } } }, {}],
    [
      "of a nested language model",
      { text_config: { num_local_experts: 8 } },
      { text_config: { num_local_experts: 8, num_experts: 8 } },
    ],
    ["of fields that are no objects: none", { rope_parameters: 3, per_layer_config: [1], mlp_layer_types: {} }, {}],
  ];
  test.each(cases)("%s", (_, config, added) => {
    expect(withOlderFields(config)).toEqual({ ...config, ...added });
  });
});

test("layers of transformers 5's names are those of the older ones", async () => {
  const { config } = fixture<{ config: { layer_types: string[] } }>("models/granitemoehybrid.json");
  const layer_types = config.layer_types.map((type) => (type === "mamba" ? "linear_attention" : "full_attention"));
  const shapes = async (one: Record<string, unknown>) => {
    const model = await createModel(one, "a test");
    const found = model.namedParameters().map(([name, { shape }]) => [name, ...shape]);
    model.dispose();
    return found;
  };
  expect(await shapes({ ...config, layer_types })).toEqual(await shapes(config));
});

test("steps of a state need no upper bound", async () => {
  const model = await createModel(
    { ...tinyMamba, hidden_size: 32, num_hidden_layers: 1, vocab_size: 8, time_step_limit: [0, Infinity] },
    "a test",
  );
  expect(model.layers).toHaveLength(1);
  model.dispose();
  const wrong = createModel(
    { ...tinyMamba, hidden_size: 32, num_hidden_layers: 1, vocab_size: 8, time_step_limit: [0, "x"] },
    "a test",
  );
  expect(wrong).rejects.toThrow('"time_step_limit.1" is "x"');
});
