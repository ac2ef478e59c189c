import { describe, expect, test } from "bun:test";
import { expectValues } from "../../test/parity/fixtures";
import { tinyVocabulary } from "../../test/tiny-model";
import type { UserError } from "../errors";
import * as mx from "../mlx";
import { type Cache, mergeCaches } from "../nn";
import { createModel, type LanguageModel } from ".";

const text = {
  hidden_size: 32,
  num_hidden_layers: 4,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 16,
  rms_norm_eps: 1e-5,
  vocab_size: tinyVocabulary,
  rope_theta: 10_000,
  use_qk_norm: true,
  attention_chunk_size: 9,
  interleave_moe_layer_step: 2,
  intermediate_size: 32,
  intermediate_size_mlp: 32,
  num_experts_per_tok: 1,
  num_local_experts: 2,
  floor_scale: 16,
};

const make = (change: object = {}) => {
  mx.random.seed(4);
  return createModel({ model_type: "llama4", text_config: { ...text, ...change } }, "./my-model");
};

const tokens = (count: number, factor: number) =>
  Array.from({ length: count }, (_, i) => (factor * i * i + 3 * i) % tinyVocabulary);

const row = (ids: readonly number[]) => mx.array([...ids], "uint32", [1, ids.length]);

/** Logits of the last token, read whole and without a cache. */
const alone = (model: LanguageModel, ids: readonly number[]) =>
  mx.scope(() => model.forward(row(ids)).at(0, -1).toArray() as Float32Array);

const dispose = (caches: readonly Cache[]) => {
  for (const cache of caches) cache.dispose();
};

describe("attention within chunks", () => {
  test("sees no token of another chunk, and full attention does", async () => {
    const chunked = await make({ no_rope_layers: [1, 1, 1, 1] });
    const [one, other] = [tokens(12, 5), [...tokens(9, 7), ...tokens(12, 5).slice(9)]];
    expect(alone(chunked, one)).toEqual(alone(chunked, other));
    chunked.dispose();
    const mixed = await make();
    expect(alone(mixed, one)).not.toEqual(alone(mixed, other));
    mixed.dispose();
  });

  test("gives the same once old tokens are dropped, alone and in a batch, and leaves no tensor behind", async () => {
    const model = await make();
    mx.eval(model.parameters());
    const before = mx.liveHandles();
    const rows = [tokens(300, 5), tokens(285, 7)];
    const caches = rows.map((ids) => {
      const cache = model.makeCache();
      for (const part of [ids.slice(0, 280), ids.slice(280, -4), ids.slice(-4, -3)]) {
        mx.scope(() => void model.forward(row(part), { cache }));
      }
      return cache;
    });
    const [long] = caches;
    expect(long!.map(({ size }) => size)).toEqual([26, 26, 26, 297]);
    expect(long![0]!.isTrimmable()).toBe(false);

    const layers = long!.map((_, layer) => mergeCaches(caches.map((cache) => cache[layer]!)));
    const batch = (at: number) =>
      mx.array(
        rows.map((ids) => ids.at(at)!),
        "uint32",
        [2, 1],
      );
    const logits = [-3, -2].map((at) =>
      mx.scope(() => model.forward(batch(at), { cache: layers }).at(":", -1).toArray() as Float32Array),
    );
    for (const [i, ids] of rows.entries()) {
      const of = (values: Float32Array) => values.slice(i * tinyVocabulary, (i + 1) * tinyVocabulary);
      expectValues(of(logits[0]!), alone(model, ids.slice(0, -2)), { tolerance: 1e-4 });
      expectValues(of(logits[1]!), alone(model, ids.slice(0, -1)), { tolerance: 1e-4 });

      const own = layers.map((layer) => layer.extract(i));
      const last = mx.scope(() =>
        model
          .forward(row(ids.slice(-1)), { cache: own })
          .at(0, -1)
          .toArray(),
      );
      expectValues(last as Float32Array, alone(model, ids), { tolerance: 1e-4 });
      dispose(own);
    }
    for (const cache of [...caches, layers]) dispose(cache);
    expect(mx.liveHandles()).toBe(before);
    model.dispose();
  });

  test("drops old tokens of a batch as well", async () => {
    const model = await make();
    const rows = [tokens(300, 5), tokens(290, 7)];
    const caches = rows.map((ids) => {
      const cache = model.makeCache();
      mx.scope(() => void model.forward(row(ids.slice(0, -1)), { cache }));
      return cache;
    });
    const layers = caches[0]!.map((_, layer) => mergeCaches(caches.map((cache) => cache[layer]!)));
    const last = mx.array(
      rows.map((ids) => ids.at(-1)!),
      "uint32",
      [2, 1],
    );
    const logits = mx.scope(() => model.forward(last, { cache: layers }).at(":", -1).toArray() as Float32Array);
    expect(layers.map(({ size }) => size)).toEqual([10, 10, 10, 300]);
    for (const [i, ids] of rows.entries()) {
      expectValues(logits.slice(i * tinyVocabulary, (i + 1) * tinyVocabulary), alone(model, ids), { tolerance: 1e-4 });
    }
    layers[0]!.extend(mergeCaches([caches[0]![0]!]));
    layers[0]!.filter([2, 1]);
    expect(layers[0]!.batchSize).toBe(2);
    for (const cache of [...caches, layers]) dispose(cache);
    model.dispose();
  });
});

test("a published checkpoint becomes ours once, and stays", async () => {
  const model = await make();
  mx.scope(() => {
    const experts = "language_model.model.layers.1.feed_forward.experts";
    const joint = mx.arange(0, 2 * 3 * 8, 1, { dtype: "float32" }).reshape(2, 3, 8);
    const once = model.sanitize(
      new Map(
        Object.entries({
          [`${experts}.gate_up_proj`]: joint,
          [`${experts}.down_proj`]: mx.zeros([2, 4, 3]),
          "language_model.lm_head.weight": mx.zeros([1]),
          "multi_modal_projector.linear_1.weight": mx.zeros([1]),
          "vision_model.layernorm_pre.weight": mx.zeros([1]),
        }),
      ),
    );
    expect([...once].map(([name, { shape }]) => [name, shape])).toEqual([
      [`${experts}.gate_proj.weight`, [2, 4, 3]],
      [`${experts}.up_proj.weight`, [2, 4, 3]],
      [`${experts}.down_proj.weight`, [2, 3, 4]],
      ["language_model.lm_head.weight", [1]],
    ]);
    expect(once.get(`${experts}.up_proj.weight`)!.at(1, 3).toList()).toEqual([31, 39, 47]);
    expect([...model.sanitize(once)]).toEqual([...once]);
  });
  model.dispose();
});

test("more experts for a token, or a list of other length, are refused", async () => {
  const failure = async (change: object) => (await make(change).catch((error: UserError) => error)) as UserError;
  expect((await failure({ num_experts_per_tok: 2 })).message).toContain('"text_config.num_experts_per_tok" is 2');
  expect((await failure({ no_rope_layers: [1] })).message).toBe(
    'config.json of ./my-model: "text_config.no_rope_layers" has 1 entries, but "num_hidden_layers" is 4',
  );
});
