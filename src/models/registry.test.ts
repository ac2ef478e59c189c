import { describe, expect, test } from "bun:test";
import { ExitCode, UserError } from "../errors";
import * as mx from "../mlx";
import { architecture, createModel, modelTypes } from ".";

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

async function failure(config: Record<string, unknown>): Promise<UserError> {
  const error = await createModel(config, "./my-model").catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(UserError);
  return error as UserError;
}

describe("architectures", () => {
  test("every model type has one", async () => {
    for (const type of modelTypes) expect(Object.keys(await architecture(type))).toContain("Model");
  });

  test("an unknown type names the nearest", async () => {
    const error = await failure({ ...llama, model_type: "mixtrall" });
    expect(error.message).toBe('models of type "mixtrall" are not supported');
    expect(error.code).toBe(ExitCode.notFound);
    expect(error.hint).toBe("The nearest supported: mixtral, mistral");
    expect((await failure({ model_type: "__proto__" })).code).toBe(ExitCode.notFound);
  });

  test("a model holds its parameters and nothing else, and frees them", async () => {
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
    [{ model_type: 7 }, '"model_type" is 7, but must be a text'],
    [{ model_type: undefined }, '"model_type" is missing'],
  ];
  for (const [change, message] of cases) {
    test(`${JSON.stringify(change)}`, async () => {
      expect((await failure({ ...llama, ...change })).message).toBe(`config.json of ./my-model: ${message}`);
    });
  }

  test("the next step", async () => {
    const { hint } = await failure({ ...llama, hidden_size: 0 });
    expect(hint).toBe("Fix the file, or download the model again: mlxlm models rm ./my-model");
  });
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

test("Phi-3 refuses positions that it does not stretch", () => {
  const phi = (scaling: object) => createModel({ ...llama, model_type: "phi3", rope_scaling: scaling }, "a test");
  expect(phi({ type: "yarn", factor: 2 })).rejects.toThrow(
    '"rope_scaling" has type "yarn", but Phi-3 knows default, linear, longrope, su',
  );
  expect(phi({ type: "su" })).rejects.toThrow('rotary embeddings of type "longrope" need "long_factor"');
});
