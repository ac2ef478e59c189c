import { expect, test } from "bun:test";
import { expectValues } from "../../test/parity/fixtures";
import { tinyVocabulary } from "../../test/tiny-model";
import type { UserError } from "../errors";
import * as mx from "../mlx";
import { createModel } from ".";

const text = {
  hidden_size: 32,
  num_hidden_layers: 4,
  intermediate_size: [32, 32, 64, 64],
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 8,
  rms_norm_eps: 1e-6,
  vocab_size: tinyVocabulary,
  vocab_size_per_layer_input: tinyVocabulary - 7,
  num_kv_shared_layers: 2,
  sliding_window: 4,
  rope_theta: 1_000_000,
  layer_types: ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
  activation_sparsity_pattern: [0.5, 0, 0, 0],
  hidden_size_per_layer_input: 8,
  altup_num_inputs: 4,
  altup_coef_clip: 2,
  altup_correct_scale: true,
  altup_active_idx: 0,
  laurel_rank: 4,
};

const make = (change: object = {}) =>
  createModel({ model_type: "gemma3n", text_config: { ...text, ...change } }, "./my-model");

test("a prompt has the same logits with and without a cache, and leaves no tensor behind", async () => {
  mx.random.seed(2);
  const before = mx.liveHandles();
  const model = await make();
  // The last ids have no row in the table of the layers' inputs.
  const inputs = [5, 9, tinyVocabulary - 1, 33, 41, 8, 2];
  mx.scope(() => {
    const ids = mx.array([inputs], "uint32");
    const cache = model.makeCache();
    expect(cache.map((layer) => layer.constructor.name)).toEqual(["RotatingKVCache", "KVCache"]);
    const whole = model.forward(ids).at(0).toArray() as Float32Array;
    expectValues(model.forward(ids, { cache }).at(0).toArray(), whole, { tolerance: 1e-5 });
    for (const layer of cache) layer.dispose();
    const stepped = model.makeCache();
    const last = inputs.map((id) => model.forward(mx.array([[id]], "uint32"), { cache: stepped })).at(-1)!;
    expectValues(last.at(0, -1).toArray(), whole.slice(-tinyVocabulary), { tolerance: 1e-4 });
    for (const layer of stepped) layer.dispose();
  });
  model.dispose();
  expect(mx.liveHandles()).toBe(before);
});

test("a published checkpoint becomes ours once, and stays", async () => {
  const model = await make();
  mx.scope(() => {
    const layers = "model.language_model.layers";
    const once = model.sanitize(
      new Map(
        Object.entries({
          [`${layers}.1.self_attn.k_proj.weight`]: mx.zeros([8, 32]),
          [`${layers}.2.self_attn.k_proj.weight`]: mx.zeros([8, 32]),
          [`${layers}.3.self_attn.k_norm.weight`]: mx.zeros([8]),
          [`${layers}.0.altup.correction_coefs.weight`]: mx.full([4, 4], 3),
          "lm_head.weight": mx.zeros([1]),
          "model.audio_tower.conformer.0.norm.weight": mx.zeros([1]),
          "model.embed_vision.embedding.weight": mx.zeros([1]),
          "model.vision_tower.timm_model.blocks.0.0.bn1.weight": mx.zeros([1]),
        }),
      ),
    );
    expect([...once.keys()]).toEqual([
      `${layers}.1.self_attn.k_proj.weight`,
      `${layers}.0.altup.correction_coefs.weight`,
    ]);
    const coefficients = once.get(`${layers}.0.altup.correction_coefs.weight`)!;
    expect(coefficients.max().item()).toBe(2);
    expect([...model.sanitize(once).keys()]).toEqual([...once.keys()]);
  });
  model.dispose();
});

test("lists that are not one for each layer are named", async () => {
  const failure = async (change: object) => (await make(change).catch((error: UserError) => error)) as UserError;
  expect((await failure({ intermediate_size: [32] })).message).toBe(
    'config.json of ./my-model: "text_config.intermediate_size" has 1 entries, but "num_hidden_layers" is 4',
  );
  expect((await failure({ altup_active_idx: 4 })).message).toContain('"text_config.altup_active_idx" is 4');
  expect((await failure({ num_kv_shared_layers: 3 })).message).toContain("no layer ahead of these has the type");
});
