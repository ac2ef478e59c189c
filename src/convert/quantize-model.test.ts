/** What becomes of each layer when a model is quantized or cast, and what is said of those that stay. */
import { describe, expect, test } from "bun:test";
import { tinyModel } from "../../test/tiny-model";
import { ExitCode, UserError } from "../errors";
import * as mx from "../mlx";
import { warningsOf } from "../warnings";
import { cast } from "./cast";
import { quantizeModel } from "./quantize-model";

test("an architecture's own wishes: other bits, left alone, or as all", async () => {
  const model = await tinyModel();
  const config = quantizeModel(
    model,
    {},
    {
      groupSize: 32,
      bits: 4,
      predicate(path) {
        if (path.endsWith("o_proj")) return "leave";
        return path.endsWith("down_proj") ? { group_size: 64, bits: 8 } : null;
      },
    },
  );
  expect(config.quantization).toEqual({
    group_size: 32,
    bits: 4,
    mode: "affine",
    "model.layers.0.mlp.down_proj": { group_size: 64, bits: 8 },
    "model.layers.1.mlp.down_proj": { group_size: 64, bits: 8 },
  });
  const packings = model
    .namedModules()
    .flatMap(([path, module]) => (path.includes("layers.0.") && "packing" in module ? [[path, module.packing]] : []));
  expect(Object.fromEntries(packings)).toMatchObject({
    "model.layers.0.mlp.down_proj": { groupSize: 64, bits: 8 },
    "model.layers.0.self_attn.q_proj": { groupSize: 32, bits: 4 },
  });
  expect(packings.map(([path]) => path)).not.toContain("model.layers.0.self_attn.o_proj");
  model.dispose();
});

test("a cast leaves what is to keep its dtype", async () => {
  const model = await tinyModel();
  cast(model, "bfloat16", (path) => path.includes("norm"));
  const dtypes = model.namedParameters().map(([name, { dtype }]) => [name.includes("norm"), dtype].join());
  expect([...new Set(dtypes)].sort()).toEqual(["false,bfloat16", "true,float32"]);
  model.dispose();
});

describe("layers that cannot be quantized", () => {
  test("some: a warning names them", async () => {
    const model = await tinyModel({ hidden_size: 32, intermediate_size: 48 });
    expect(await warningsOf(async () => quantizeModel(model, {}, { groupSize: 32 }))).toEqual([
      "model.layers.0.mlp.down_proj and model.layers.1.mlp.down_proj are not quantized: the group size 32 does not divide the inputs",
    ]);
    model.dispose();
  });

  const failure = async (model: Awaited<ReturnType<typeof tinyModel>>, groupSize: number): Promise<UserError> => {
    const live = mx.liveHandles();
    try {
      quantizeModel(model, {}, { groupSize });
    } catch (error) {
      expect(error).toBeInstanceOf(UserError);
      expect(mx.liveHandles()).toBe(live);
      return error as UserError;
    } finally {
      model.dispose();
    }
    return expect.unreachable();
  };

  test("all: the group size fits none", async () => {
    const { message, hint, code } = await failure(await tinyModel(), 48);
    expect(message).toBe("no layer can be quantized in groups of 48: none has a multiple of it as inputs");
    expect(hint).toBe("Take another group size: 32, 64");
    expect(code).toBe(ExitCode.usage);
  });

  test("all: they are quantized already", async () => {
    const model = await tinyModel();
    quantizeModel(model, {}, { groupSize: 32, bits: 8 });
    const { message, hint, code } = await failure(model, 32);
    expect(message).toMatch(/^the model is quantized already \(10\.16 bits per weight\)/);
    expect(hint).toMatch(/--dequantize/);
    expect(code).toBe(ExitCode.usage);
  });
});
