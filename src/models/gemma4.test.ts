import { describe, expect, test } from "bun:test";
import { tinyVocabulary } from "../../test/tiny-model";
import type { UserError } from "../errors";
import * as mx from "../mlx";
import { createModel } from ".";

const text = {
  hidden_size: 32,
  num_hidden_layers: 6,
  intermediate_size: 32,
  num_attention_heads: 2,
  head_dim: 8,
  global_head_dim: 16,
  vocab_size: tinyVocabulary,
  num_kv_shared_layers: 3,
  hidden_size_per_layer_input: 8,
  sliding_window: 4,
  sliding_window_pattern: 3,
};

const make = (change: object = {}) => createModel({ model_type: "gemma4_text", ...text, ...change }, "./my-model");

describe("layers that share keys and values", () => {
  test("have no cache and no projections for them", async () => {
    const model = await make();
    expect(model.makeCache().map((cache) => cache.constructor.name)).toEqual([
      "RotatingKVCache",
      "RotatingKVCache",
      "KVCache",
    ]);
    const owns = model.layers.map((_, i) =>
      model.namedParameters().some(([name]) => name === `model.layers.${i}.self_attn.k_proj.weight`),
    );
    expect(owns).toEqual([true, true, true, false, false, false]);
    model.dispose();
  });

  test("go on from packed keys and values", async () => {
    mx.random.seed(1);
    const wide = { head_dim: 64, global_head_dim: 64 };
    const model = await make(wide);
    const { quantizeCaches } = await import("../generate/kv-quantization");
    const step = (cache: ReturnType<typeof model.makeCache>) =>
      mx.scope(() => model.forward(mx.array([[3]], "uint32"), { cache }).toArray() as Float32Array);
    const read = () => {
      const cache = model.makeCache();
      mx.scope(() => void model.forward(mx.array([[5, 9, 2, 33, 41, 8]], "uint32"), { cache }));
      return cache;
    };
    const [plain, packed] = [read(), read()];
    quantizeCaches(packed, { start: 0, groupSize: 64, bits: 8 });
    expect(packed.map((cache) => cache.constructor.name)).toContain("QuantizedKVCache");
    const [expected, got] = [step(plain), step(packed)];
    const off = Math.max(...got.map((value, i) => Math.abs(value - expected[i]!)));
    expect(off).toBeLessThan(0.05 * Math.max(...expected.map(Math.abs)));
    expect(off).toBeGreaterThan(0);
    for (const cache of [...plain, ...packed]) cache.dispose();
    model.dispose();
  });

  test("need one of their type ahead of them", async () => {
    const failure = async (change: object) => (await make(change).catch((error: UserError) => error)) as UserError;
    expect((await failure({ num_kv_shared_layers: 4 })).message).toBe(
      'config.json of ./my-model: "num_kv_shared_layers" is 4: no layer ahead of these has the type of one of them',
    );
    expect((await failure({ num_kv_shared_layers: 7 })).message).toContain('but "num_hidden_layers" is 6');
    expect((await failure({ enable_moe_block: true })).message).toContain('"num_experts" must be more than 0');
  });
});

test("a published checkpoint becomes ours once, and stays", async () => {
  const { vocab_size, ...nested } = text;
  const D = text.hidden_size;
  const model = await createModel(
    {
      model_type: "gemma4_unified",
      vocab_size,
      text_config: {
        ...nested,
        enable_moe_block: true,
        num_experts: 2,
        top_k_experts: 1,
        moe_intermediate_size: 4,
      },
    },
    "a test",
  );
  expect(model.vocabSize).toBe(vocab_size);
  mx.scope(() => {
    const theirs = "model.language_model.layers";
    const gateUp = mx.arange(0, 2 * 8 * D, 1, { dtype: "float32" }).reshape(2, 8, D);
    const once = model.sanitize(
      new Map(
        Object.entries({
          [`${theirs}.0.experts.gate_up_proj`]: gateUp,
          [`${theirs}.0.experts.down_proj`]: mx.zeros([2, D, 4]),
          [`${theirs}.5.self_attn.k_proj.weight`]: mx.zeros([8, D]),
          [`${theirs}.0.self_attn.k_proj.weight`]: mx.zeros([8, D]),
          [`${theirs}.0.mlp.up_proj.input_max`]: mx.zeros([1]),
          "model.vision_tower.patch_embedder.position_embedding_table": mx.zeros([1]),
          "model.vision_embedder.weight": mx.zeros([1]),
          "model.embed_audio.embedding_projection.weight": mx.zeros([1]),
        }),
      ),
    );
    const ours = "language_model.model.layers.0";
    expect([...once.keys()].sort()).toEqual([
      `${ours}.experts.switch_glu.down_proj.weight`,
      `${ours}.experts.switch_glu.gate_proj.weight`,
      `${ours}.experts.switch_glu.up_proj.weight`,
      `${ours}.self_attn.k_proj.weight`,
    ]);
    const up = once.get(`${ours}.experts.switch_glu.up_proj.weight`)!;
    expect(up.toArray()).toEqual(gateUp.at(":", mx.slice(4)).toArray());
    expect([...model.sanitize(once)]).toEqual([...once]);
  });
  model.dispose();
});
