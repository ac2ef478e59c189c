import { describe, expect, test } from "bun:test";
import { tinyHybrid } from "../../test/tiny-model";
import { ExitCode, UserError } from "../errors";
import * as mx from "../mlx";
import { architecture, createModel, ggufArchitecture, modelTypes } from ".";

const llama = {
  model_type: "llama",
  hidden_size: 16,
  num_hidden_layers: 2,
  intermediate_size: 32,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 32,
  rms_norm_eps: 1e-5,
};

async function failure(config: Record<string, unknown>, source = "./my-model"): Promise<UserError> {
  const error = await createModel(config, source).catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(UserError);
  return error as UserError;
}

describe("architectures", () => {
  test("every model type has one", async () => {
    for (const type of modelTypes) expect(Object.keys(await architecture(type))).toContain("Model");
  });

  test("those that say how GGUF has them are found by that name", async () => {
    const described = {
      number: () => undefined,
      text: () => undefined,
      list: () => undefined,
      factors: () => undefined,
      shape: () => undefined,
    };
    const file = { ...described, need: () => 1, wrong: (problem: string): never => expect.unreachable(problem) };
    for (const type of modelTypes) {
      const { gguf } = await architecture(type);
      if (!gguf) continue;
      const found = await ggufArchitecture(gguf.architecture, file);
      expect(found?.gguf.architecture, type).toBe(gguf.architecture);
    }
  });

  test("an unknown type names the nearest", async () => {
    const error = await failure({ ...llama, model_type: "mixtrall" });
    expect(error.message).toBe('models of type "mixtrall" are not supported');
    expect(error.code).toBe(ExitCode.notFound);
    expect(error.hint).toBe("The nearest supported: mixtral, mistral, mistral3");
    expect((await failure({ model_type: "__proto__" })).code).toBe(ExitCode.notFound);
  });

  test("an unknown type whose checkpoint brings code says that no code is run", async () => {
    const auto_map = { AutoModelForCausalLM: "modeling_own.OwnForCausalLM" };
    const error = await failure({ model_type: "own_model", auto_map });
    expect(error.message).toBe(
      'models of type "own_model" are not supported: they are Python code in the checkpoint, and mlxlm runs no code of a model',
    );
    expect(error.code).toBe(ExitCode.notFound);
    const known = await createModel({ ...llama, auto_map }, "a test");
    expect(known.layers).toHaveLength(2);
    known.dispose();
  });

  test("a model holds its parameters and nothing else, and frees them", async () => {
    // The generator's key lives on from the first number that is drawn: by this test, or by one before it.
    mx.random.seed(0);
    const before = mx.liveHandles();
    const model = await createModel(llama, "a test");
    expect(mx.liveHandles() - before).toBe(model.namedParameters().length);
    model.dispose();
    expect(mx.liveHandles()).toBe(before);
  });
});

describe("wrong fields of config.json", () => {
  const cases: [Record<string, unknown>, string][] = [
    [{ num_key_value_heads: 3 }, '"num_key_value_heads" is 3, but "num_attention_heads" (4) must be a multiple of it'],
    [{ hidden_size: "16" }, '"hidden_size" is "16", but must be a number'],
    [{ hidden_size: 1.5 }, '"hidden_size" is 1.5, but must be an integer'],
    [{ hidden_size: 0 }, '"hidden_size" is 0, but must be more than 0'],
    [{ hidden_size: 18 }, '"hidden_size" is 18, but must be a multiple of "num_attention_heads" (4)'],
    [{ vocab_size: undefined }, '"vocab_size" is missing'],
    [{ vocab_size: undefined, hidden_size: -1 }, '"hidden_size" is -1, but must be more than 0 (and 1 more)'],
    [{ attention_bias: "no" }, '"attention_bias" is "no", but must be true or false'],
    [{ rope_scaling: { type: "linear", factor: "2" } }, '"rope_scaling.factor" is "2", but must be a number'],
    [{ layer_types: ["full_attention"] }, '"layer_types" has 1 entries, but "num_hidden_layers" is 2'],
    [
      { layer_types: ["full_attention", "sliding_attention"] },
      '"layer_types" has "sliding_attention", but there is no "sliding_window"',
    ],
    [
      { layer_types: ["full_attention", "ring"] },
      '"layer_types.1" is "ring", but must be one of "full_attention", "sliding_attention"',
    ],
    [{ vocab_size: 2 ** 31 }, '"vocab_size" is 2147483648, but must be at most 2147483647'],
    [{ rms_norm_eps: 1e-300 }, '"rms_norm_eps" is 1e-300, which no model can have'],
    [{ rope_theta: 1e300 }, '"rope_theta" is 1e+300, which no model can have'],
    [
      { rope_scaling: { type: "linear", factor: 1e300 } },
      '"rope_scaling.factor" is 1e+300, but must be at most 1000000',
    ],
    [
      { rope_scaling: { type: "longrope", long_factor: [1, 1e300] } },
      '"rope_scaling.long_factor.1" is 1e+300, which no model can have',
    ],
    [{ model_type: 7 }, '"model_type" is 7, but must be a text'],
    [{ model_type: undefined }, '"model_type" is missing'],
  ];
  for (const [change, message] of cases) {
    test(`${JSON.stringify(change)}`, async () => {
      expect((await failure({ ...llama, ...change })).message).toBe(`config.json of ./my-model: ${message}`);
    });
  }

  test("null stands for what is left out", async () => {
    const made = async (change: object) => {
      const model = await createModel({ ...llama, ...change }, "a test");
      const names = model.namedParameters().map(([name]) => name);
      model.dispose();
      return names;
    };
    const fields = { attention_bias: null, mlp_bias: null, tie_word_embeddings: null, rope_scaling: null };
    expect(await made(fields)).toEqual(await made({}));
    expect((await failure({ ...llama, attention_bias: null, hidden_size: null })).message).toBe(
      'config.json of ./my-model: "hidden_size" is null, but must be a number (and 1 more)',
    );
  });

  test("the next step", async () => {
    const hintFor = async (source: string) => (await failure({ ...llama, hidden_size: 0 }, source)).hint;
    expect(await hintFor("./my-model")).toBe("Fix the file.");
    const again = "Fix the file, or download the model again: mlxlm models rm org/name";
    expect(await hintFor("/home/me/hub/models--org--name/snapshots/0123")).toBe(again);
    expect(await hintFor("org/name")).toBe(again);
  });
});

test("a language model's fields under text_config are named so, and bare ones as they are", async () => {
  const layer_types = Array.from({ length: 4 }, (_, i) => (i === 1 ? "full_attention" : "linear_attention"));
  const { model_type: _, ...text } = { ...tinyHybrid, hidden_size: 32, num_attention_heads: 4, num_key_value_heads: 2 };
  const nested = (change: object) => ({ model_type: "qwen3_5", text_config: { ...text, ...change } });
  const place = "config.json of ./my-model: ";
  expect((await failure(nested({ hidden_size: "32" }))).message).toBe(
    `${place}"text_config.hidden_size" is "32", but must be a number`,
  );
  expect((await failure({ model_type: "qwen3_5", ...text, vocab_size: 0 })).message).toBe(
    `${place}"vocab_size" is 0, but must be more than 0`,
  );
  expect((await failure(nested({ num_experts: 4 }))).message).toContain(
    '"text_config.num_experts_per_tok" must be more',
  );
  expect((await failure({ model_type: "qwen3_5", text_config: 3 })).message).toContain('"text_config"');

  const model = await createModel(nested({ layer_types }), "a test");
  const attends = model.layers.map((layer) => layer.children().some(([name]) => name === "self_attn"));
  expect(attends).toEqual([false, true, false, false]);
  model.dispose();
});

test("what other programs save of a nested model becomes ours once, and stays", async () => {
  const model = await createModel(
    { ...tinyHybrid, hidden_size: 8, num_attention_heads: 1, num_key_value_heads: 1 },
    "a test",
  );
  const theirs = "model.language_model.layers.0";
  const ours = "language_model.model.layers.0";
  mx.scope(() => {
    const norm = mx.arange(0, 8, 1, { dtype: "float32" });
    const extra = ["mtp.fc.weight", "model.visual.patch_embed.proj.weight", "vision_tower.blocks.0.norm.weight"];
    const once = model.sanitize(
      new Map([
        [`${theirs}.input_layernorm.weight`, norm],
        [`${theirs}.linear_attn.norm.weight`, norm],
        [`${theirs}.linear_attn.conv1d.weight`, mx.zeros([4, 1, 3])],
        ...extra.map((name): [string, mx.Tensor] => [name, mx.zeros([1])]),
      ]),
    );
    const values = (weights: Map<string, mx.Tensor>) => [...weights].map(([name, x]) => [name, x.shape, x.toList()]);
    expect(values(once)).toEqual([
      [`${ours}.input_layernorm.weight`, [8], [1, 2, 3, 4, 5, 6, 7, 8]],
      [`${ours}.linear_attn.norm.weight`, [8], [0, 1, 2, 3, 4, 5, 6, 7]],
      [`${ours}.linear_attn.conv1d.weight`, [4, 3, 1], mx.zeros([4, 3, 1]).toList()],
    ]);
    expect(values(model.sanitize(once))).toEqual(values(once));
  });
  model.dispose();
});

test("rotary settings are read from where transformers 5 writes them", async () => {
  const inputs = mx.array([[1, 2, 3]], "uint32");
  const logits = async (rope: Record<string, unknown>) => {
    mx.random.seed(0);
    const model = await createModel({ ...llama, ...rope }, "a test");
    const result = mx.scope(() => model.forward(inputs).toArray());
    model.dispose();
    return result;
  };
  const old = await logits({ rope_theta: 500, rope_scaling: { type: "linear", factor: 2 } });
  expect(await logits({ rope_parameters: { rope_theta: 500, rope_type: "linear", factor: 2 } })).toEqual(old);
  expect(await logits({ rope_theta: 500 })).not.toEqual(old);
});

describe("rotary settings for each type of layer", () => {
  const base = { ...llama, layer_types: ["sliding_attention", "full_attention"], sliding_window: 8 };
  const logits = async (config: Record<string, unknown>) => {
    mx.random.seed(0);
    const model = await createModel({ ...base, ...config }, "a test");
    const result = mx.scope(() => model.forward(mx.array([[1, 2, 3, 9, 4]], "uint32")).toArray());
    model.dispose();
    return result;
  };
  const linear = { rope_type: "linear", factor: 8, rope_theta: 500 };
  const plain = { rope_type: "default", rope_theta: 500 };

  test("are told apart", async () => {
    const [both, sliding, full] = await Promise.all(
      [
        [linear, linear],
        [linear, plain],
        [plain, linear],
      ].map(([sliding_attention, full_attention]) =>
        logits({ rope_parameters: { sliding_attention, full_attention } }),
      ),
    );
    expect(both).toEqual(await logits({ rope_parameters: linear }));
    expect(sliding).not.toEqual(both!);
    expect(full).not.toEqual(both!);
    expect(sliding).not.toEqual(full!);
  });

  test("of Gemma 3, as transformers 5 writes them, are the old fields", async () => {
    const gemma = { ...llama, model_type: "gemma3_text", head_dim: 4, query_pre_attn_scalar: 4, sliding_window: 4 };
    const { rope_theta: _, ...named } = linear;
    const old = {
      ...gemma,
      ...{ sliding_window_pattern: 2, rope_theta: 500, rope_local_base_freq: 100, rope_scaling: named },
    };
    const sets = { full_attention: linear, sliding_attention: { rope_type: "default", rope_theta: 100 } };
    const types = { layer_types: ["sliding_attention", "full_attention"] };
    const expected = await logits(old);
    expect(await logits({ ...gemma, ...types, rope_parameters: sets })).toEqual(expected);
    expect(await logits({ ...gemma, layer_types: null, _sliding_window_pattern: 2, rope_parameters: sets })).toEqual(
      expected,
    );
    expect(await logits({ ...gemma, ...types, rope_parameters: linear, rope_local_base_freq: 100 })).toEqual(expected);
  });

  test("that lack a type, or have a field that is not known, are refused", async () => {
    const missing = createModel({ ...base, rope_parameters: { full_attention: plain } }, "a test");
    expect(missing).rejects.toThrow('"rope_parameters" has no set for layers of type "sliding_attention"');
    for (const [rope, field] of [
      [{ rope_parameters: { ...plain, spin: 2 } }, "rope_parameters"],
      [{ rope_scaling: { ...plain, spin: 2 } }, "rope_scaling"],
      [{ rope_parameters: { full_attention: { ...plain, spin: 2 } } }, "rope_parameters.full_attention"],
    ] as const) {
      const { message } = await failure({ ...base, ...rope });
      expect(message).toContain(`"${field}" has "spin", which mlxlm does not know and which may change the result`);
    }
  });
});

test("a cache size limits layers that attend to all, not those with a window of their own", async () => {
  const sizes = async (config: object) => {
    const model = await createModel({ ...llama, ...config }, "a test");
    const caches = model.makeCache({ maxSize: 64 });
    const states = caches.map((cache) => (cache.state as unknown[]).slice(3, 5));
    model.dispose();
    return states;
  };
  const keepAndSize = [4, 64];
  expect(await sizes({})).toEqual([keepAndSize, keepAndSize]);
  expect(await sizes({ layer_types: ["sliding_attention", "full_attention"], sliding_window: 8 })).toEqual([
    [0, 8],
    keepAndSize,
  ]);
});

test("Qwen's layers slide from the one that its configuration names", async () => {
  const caches = async (config: object) => {
    const model = await createModel({ ...llama, model_type: "qwen2", num_hidden_layers: 3, ...config }, "a test");
    const kinds = model.makeCache().map((cache) => cache.constructor.name);
    model.dispose();
    return kinds;
  };
  const from = { sliding_window: 8, max_window_layers: 1 };
  expect(await caches({ ...from, use_sliding_window: true })).toEqual([
    "KVCache",
    "RotatingKVCache",
    "RotatingKVCache",
  ]);
  expect(await caches({ ...from, use_sliding_window: false })).toEqual(["KVCache", "KVCache", "KVCache"]);
});

test("Phi-3 refuses positions that it does not stretch", () => {
  const phi = (scaling: object) => createModel({ ...llama, model_type: "phi3", rope_scaling: scaling }, "a test");
  expect(phi({ type: "yarn", factor: 2 })).rejects.toThrow(
    '"rope_scaling" has type "yarn", but Phi-3 knows default, linear, longrope, su',
  );
  expect(phi({ type: "su" })).rejects.toThrow('rotary embeddings of type "longrope" need "long_factor"');
});

test("a token cannot use more experts than there are", async () => {
  const { message } = await failure({ ...llama, model_type: "mixtral", num_local_experts: 2, num_experts_per_tok: 3 });
  expect(message).toContain('"num_experts_per_tok" is 3, but "num_local_experts" is 2');
});
