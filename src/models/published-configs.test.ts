/** Configurations as they are published: what they may leave out, and what they say that is not supported. */
import { expect, test } from "bun:test";
import { fixture } from "../../test/parity/fixtures";
import type { UserError } from "../errors";
import * as mx from "../mlx";
import { createModel } from ".";

type Config = Record<string, unknown> & { text_config: Record<string, unknown> };

const config = (name: string) => fixture<{ config: Config }>(`models/${name}.json`).config;

const failure = (changed: Record<string, unknown>): Promise<UserError> =>
  createModel(changed, "./my-model").then(
    () => expect.unreachable(),
    (error: UserError) => error,
  );

test("Pixtral's language model has 32 heads where nothing is said, and a head of its own", async () => {
  const { text_config, ...llava } = config("llava");
  const { num_attention_heads: _, tie_word_embeddings: __, ...text } = text_config;
  const model = await createModel({ ...llava, text_config: text }, "a test");
  const shapes = new Map(model.namedParameters().map(([name, { shape }]) => [name, shape]));
  expect(shapes.get("language_model.model.layers.0.self_attn.q_proj.weight")).toEqual([32 * 24, 64]);
  expect(shapes.has("language_model.lm_head.weight")).toBeTrue();
  model.dispose();
});

test("Mistral 3's language model is of the family that its own type names, and errors name its fields", async () => {
  const text_config = config("mistral4");
  const model = await createModel({ model_type: "mistral3", text_config }, "a test");
  expect(model.namedParameters().map(([name]) => name)).toContain(
    "language_model.model.layers.0.self_attn.embed_q.weight",
  );
  model.dispose();
  const { message } = await failure({ model_type: "mistral3", text_config: { ...text_config, kv_lora_rank: "8" } });
  expect(message).toBe('config.json of ./my-model: "text_config.kv_lora_rank" is "8", but must be a number');
});

test("a window of Ministral 3 is one for all layers, unless their types say otherwise", async () => {
  const { layer_types, ...ministral } = config("ministral3");
  const caches = async (change: object) => {
    const model = await createModel({ ...ministral, ...change }, "a test");
    const kinds = model.makeCache().map((cache) => cache.constructor.name);
    model.dispose();
    return kinds;
  };
  const [slides, sees] = ["RotatingKVCache", "KVCache"];
  expect(await caches({})).toEqual([slides, slides, slides, slides]);
  expect(await caches({ layer_types })).toEqual([slides, sees, slides, sees]);
  expect(await caches({ sliding_window: null })).toEqual([sees, sees, sees, sees]);
});

test("vision parts of each layout are left out, and language parts get one prefix", async () => {
  const model = await createModel(config("mistral3"), "a test");
  mx.scope(() => {
    const one = mx.zeros([1]);
    const parts = [
      "vision_tower.x",
      "multi_modal_projector.x",
      "model.vision_tower.x",
      "model.multi_modal_projector.x",
    ];
    const names = [...parts, "model.language_model.norm.weight", "language_model.model.norm.bias"];
    const sanitized = model.sanitize(new Map(names.map((name) => [name, one])));
    expect([...sanitized.keys()]).toEqual(["language_model.model.norm.weight", "language_model.model.norm.bias"]);
  });
  model.dispose();
});

test("MiniMax M3's words in eight bits become MLX's", async () => {
  const model = await createModel(config("minimax_m3_vl"), "a test");
  mx.scope(() => {
    const name = "language_model.model.layers.0.self_attn.q_proj";
    const weights = new Map([
      [`${name}.weight`, mx.zeros([4, 64], "uint8")],
      [`${name}.weight_scale_inv`, mx.zeros([4, 2], "uint8")],
    ]);
    const sanitized = [...model.sanitize(weights)].map(([path, { dtype, shape }]) => [path, dtype, shape]);
    expect(sanitized).toEqual([
      [`${name}.weight`, "uint32", [4, 16]],
      [`${name}.scales`, "uint8", [4, 2]],
    ]);
  });
  model.dispose();
});

test("Kimi K3's words in four bits become MLX's, and rows that fill a device are cut off", async () => {
  const model = await createModel(config("kimi_k3"), "a test");
  mx.scope(() => {
    const layer = "language_model.model.layers.1";
    const expert = (e: number, kind: string) => `${layer}.block_sparse_moe.experts.${e}.w1.weight_${kind}`;
    const experts = Array.from({ length: 8 }, (_, e): [string, mx.Tensor][] => [
      [expert(e, "packed"), mx.zeros([32, 16], "uint8")],
      [expert(e, "scale"), mx.zeros([32, 1], "uint8")],
    ]);
    const rates: [string, mx.Tensor] = [`${layer}.self_attn.A_log`, mx.zeros([1, 1, 4, 1])];
    const sanitized = model.sanitize(new Map([...experts.flat(), rates]));
    expect([...sanitized].map(([path, { dtype, shape }]) => [path, dtype, [...shape]]).sort()).toEqual([
      [`${layer}.mlp.switch_mlp.gate_proj.scales`, "uint8", [8, 32, 1]],
      [`${layer}.mlp.switch_mlp.gate_proj.weight`, "uint32", [8, 32, 4]],
      [`${layer}.self_attn.A_log`, "float32", [2]],
    ]);
  });
  model.dispose();
});

test("DeepSeek V4.1's words become MLX's: one scale a block of 32 × 32 is one for each row", async () => {
  const model = await createModel(config("deepseek_v41"), "a test");
  mx.scope(() => {
    const experts = Array.from({ length: 6 }, (_, e): [string, mx.Tensor][] => [
      [`layers.0.ffn.experts.${e}.w1.weight`, mx.zeros([32, 32], "uint8")],
      [`layers.0.ffn.experts.${e}.w1.scale`, mx.zeros([32, 2], "uint8")],
    ]);
    const weights = new Map([
      ...experts.flat(),
      ["layers.0.attn.wo_a.weight", mx.zeros([64, 64], "uint8")],
      ["layers.0.attn.wo_a.scale", mx.full([2, 2], 2)],
      ["vision.x.weight", mx.zeros([1])],
      ["mtp.0.x.weight", mx.zeros([1])],
      ["layers.0.ffn.gate.bias_vl", mx.zeros([1])],
    ] as [string, mx.Tensor][]);
    const sanitized = model.sanitize(weights);
    expect([...sanitized].map(([path, { dtype, shape }]) => [path, dtype, [...shape]]).sort()).toEqual([
      ["model.layers.0.mlp.experts.switch_mlp.gate_proj.scales", "uint8", [6, 32, 2]],
      ["model.layers.0.mlp.experts.switch_mlp.gate_proj.weight", "uint32", [6, 32, 8]],
      ["model.layers.0.self_attn.o_a_proj.scales", "uint8", [2, 32, 2]],
      ["model.layers.0.self_attn.o_a_proj.weight", "uint32", [2, 32, 16]],
    ]);
    expect(sanitized.get("model.layers.0.self_attn.o_a_proj.scales")!.max().item()).toBe(128);
  });
  model.dispose();
});

const unsupported: [string, string, Record<string, unknown>, string][] = [
  ["MiniMax M1's linear attention", "minimax", { layer_types: ["linear_attention"] }, '"layer_types.0" is'],
  ["too few groups of experts", "glm4_moe", { n_group: 2, topk_group: 3 }, '"topk_group" is 3, but "n_group" is 2'],
  ["more experts in use than there are", "minimax", { num_experts_per_tok: 7 }, '"num_experts_per_tok" is 7'],
  ["another routing", "mistral4", { scoring_func: "sigmoid" }, '"scoring_func" is "sigmoid"'],
  [
    "queries that do not say how they grow",
    "ministral3",
    { rope_parameters: { rope_theta: 1e4 } },
    "rope_parameters.original_max_position_embeddings",
  ],
  ["bases for too few layers", "step3p5", { rope_theta: [1e4] }, '"rope_theta" has 1 entries, but "num_hidden_layers"'],
  [
    "types for too few layers",
    "step3p5",
    { layer_types: ["full_attention"] },
    '"layer_types" has 1 entries, but "num_hidden_layers"',
  ],
  ["a memory of n-grams", "deepseek_v41", { engram_layer_ids: [2] }, '"engram_layer_ids" has layers with a memory'],
  ["groups of a layer without any", "deepseek_v41", { kv_source_layer_ids: [5] }, '"kv_source_layer_ids" has 5'],
  ["a choice without keys", "deepseek_v41", { kv_source_layer_ids: [] }, '"index_source_layer_ids" has 0'],
  ["heads that do not divide into groups", "step3p5", { num_attention_groups: 3 }, '"num_attention_groups" is 3'],
];

for (const [what, name, change, message] of unsupported) {
  test(`refused by the field's name: ${what}`, async () => {
    expect((await failure({ ...config(name), ...change })).message).toContain(message);
  });
}

test("Phixtral's sizes have the names of Phi 2's first configuration, or mlx-lm's", async () => {
  const { num_vocab, model_dim, num_heads, num_layers, ...phixtral } = config("phixtral");
  const named = { vocab_size: num_vocab, n_embd: model_dim, n_head: num_heads, n_layer: num_layers };
  const shapes = async (one: Record<string, unknown>) => {
    const model = await createModel(one, "a test");
    const found = model.namedParameters().map(([name, { shape }]) => [name, ...shape]);
    model.dispose();
    return found;
  };
  expect(await shapes({ ...phixtral, ...named, model_type: "phi-msft" })).toEqual(await shapes(config("phixtral")));
});

test("settings of OLMo that no published model has are refused by name", async () => {
  const { message } = await failure({ ...config("hf_olmo"), alibi: true });
  expect(message).toBe('config.json of ./my-model: "alibi" is true, but must be one of false');
  const published = { alibi: false, multi_query_attention: null, layer_norm_type: "default", clip_qkv: null };
  (await createModel({ ...config("hf_olmo"), ...published }, "a test")).dispose();
});

test("Hunyuan's numbers are one for all layers or a list of each, which has as many", async () => {
  const { message } = await failure({ ...config("hunyuan"), moe_topk: [2, 2] });
  expect(message).toBe('config.json of ./my-model: "moe_topk" has 2 entries, but "num_hidden_layers" is 4');
  const many = await failure({ ...config("hunyuan"), moe_topk: 7 });
  expect(many.message).toBe('config.json of ./my-model: "moe_topk" is 7, but "num_experts" is 6');
  (await createModel({ ...config("hunyuan"), moe_topk: 2, num_shared_expert: [1, 1, 1, 1] }, "a test")).dispose();
});

test("ids without text of Phi 3 small are never likely, and those beyond the vocabulary are passed over", async () => {
  const { dummy_token_indices: ids, ...phi } = config("phi3small");
  const logits = async (one: Record<string, unknown>) => {
    const model = await createModel(one, "a test");
    const values = mx.scope(
      () =>
        model
          .forward(mx.array([[5, 6]], "uint32"))
          .at(0, -1)
          .toArray() as Float32Array,
    );
    model.dispose();
    return [...values.entries()].filter(([, value]) => value === Number.NEGATIVE_INFINITY).map(([id]) => id);
  };
  expect(await logits({ ...phi, dummy_token_indices: ids })).toEqual(ids as number[]);
  // The published ones begin at 100,256.
  expect(await logits(phi)).toEqual([]);
});
