/** Muse Spark's images against mlx-lm's: sizes, features of the tower, and logits of a prompt with images. */
import { describe, expect, test } from "bun:test";
import { row } from "../../../test/parity/decode";
import { expectValues, fixture, float32 } from "../../../test/parity/fixtures";
import { formulaModel, formulaTensors } from "../../../test/parity/formula-model";
import { uniform } from "../../../test/parity/weights";
import { UserError } from "../../errors";
import * as mx from "../../mlx";
import { quantize } from "../../nn";
import type { Model } from "../muse_spark";
import { architecture } from "../registry";
import { imageForm } from "./image-form";

type Values = { features: string; logits: string };

const { salt, grids, prompt, runs, targets } = fixture<{
  salt: number;
  grids: [rows: number, columns: number][];
  prompt: number[];
  runs: {
    config: { model_type: string; vision_config: { patch_size: number }; [field: string]: unknown };
    weights: Record<string, number[]>;
    float32: Values;
    bfloat16: Values;
  }[];
  targets: { from: [number, number]; to: [number, number]; tokens: number }[];
}>("vision.json");

mx.random.seed(1);
mx.eval(mx.random.state.get());

/** The oracle's images, side by side with their grids of patches. */
const images = (side: number) =>
  grids.map(([rows, columns], i) => {
    const shape = [3, rows * side, columns * side];
    return mx.array(
      uniform(
        `image ${i}`,
        shape.reduce((a, b) => a * b),
      ),
      "float32",
      shape,
    );
  });

describe.each(runs.map((run, i) => [i === 0 ? "grids by columns" : "grids by rows", run] as const))("%s", (_, run) => {
  const results = async (dtype: mx.Dtype) => {
    const model = (await formulaModel({ ...run, salt }, dtype)) as Model;
    const found = mx.scope(() => {
      const seeing = model.images!;
      const embedded = seeing.embed(prompt, seeing.see(images(run.config.vision_config.patch_size)));
      expect(embedded.shape).toEqual([prompt.length, 64]);
      const seen = prompt.flatMap((token, at) => (token === run.config.image_token_id ? [at] : []));
      const features = embedded.take(mx.array(seen, "uint32"), 0).astype("float32");
      const logits = model.forward(row(prompt), { inputEmbeddings: embedded.expandDims(0) }).at(0, -1);
      return { features: features.flatten().toArray() as Float32Array, logits: logits.toArray() as Float32Array };
    });
    model.dispose();
    return found;
  };

  test("the tower's features, and the logits", async () => {
    const before = mx.liveHandles();
    const { features, logits } = await results("float32");
    expectValues(features, float32(run.float32.features), { tolerance: 1e-4 });
    expectValues(logits, float32(run.float32.logits), { tolerance: 1e-4 });
    expect(mx.liveHandles()).toBe(before);
  });

  test("in bfloat16: no further from float32 than mlx-lm's", async () => {
    const exact = float32(run.float32.features);
    const error = (values: ArrayLike<number>) =>
      Math.sqrt(exact.reduce((sum, value, i) => sum + (values[i]! - value) ** 2, 0) / exact.length);
    const [ours, theirs] = [error((await results("bfloat16")).features), error(float32(run.bfloat16.features))];
    expect(theirs).toBeGreaterThan(1e-3);
    expect(ours).toBeLessThan(theirs * 1.1);
  });

  test("sanitize changes nothing of the model's own names", async () => {
    const { Args, Model } = await architecture(run.config.model_type);
    const model = new Model(Args.parse(run.config)) as Model;
    mx.scope(() => {
      const once = model.sanitize(formulaTensors({ ...run, salt }));
      const twice = model.sanitize(once);
      expect([...twice.keys()].sort()).toEqual([...once.keys()].sort());
      expect([...once].every(([name, tensor]) => twice.get(name) === tensor)).toBe(true);
      expect([...once.keys()].sort()).toEqual(
        model
          .namedParameters()
          .map(([name]) => name)
          .sort(),
      );
    });
    model.dispose();
  });
});

test("a tower that is packed sees much the same", async () => {
  const [run] = runs as [(typeof runs)[number]];
  const model = (await formulaModel({ ...run, salt })) as Model;
  const seen = () => mx.scope(() => model.images!.see(images(4)).flatten().toArray() as Float32Array);
  const exact = seen();
  quantize(model, { bits: 8, groupSize: 32, predicate: (path) => /vision_.*(proj|fc\d|embedding|table)$/.test(path) });
  const packed = seen();
  const size = (values: Float32Array) => Math.sqrt(values.reduce((sum, value) => sum + value ** 2, 0));
  const apart = size(packed.map((value, i) => value - exact[i]!)) / size(exact);
  expect(apart).toBeGreaterThan(0);
  expect(apart).toBeLessThan(0.05);
  model.dispose();
});

test("without a vision_config the tower's tensors are left out", async () => {
  const [{ config, weights }] = runs as [(typeof runs)[number]];
  const { vision_config: _, ...blind } = config;
  const model = (await formulaModel({ config: { ...blind, model_type: "muse_spark" }, weights, salt })) as Model;
  expect(model.images).toBeNull();
  expect(model.namedParameters().filter(([name]) => name.includes("vision"))).toEqual([]);
  model.dispose();
});

test.each(targets)("an image of $from pixels is stretched to $to", ({ from, to, tokens }) => {
  const [width, height] = from;
  expect(imageForm(28).fit(width, height)).toEqual({ width: to[0], height: to[1], tokens });
});

test("other numbers of places and rows are refused", async () => {
  const [run] = runs as [(typeof runs)[number]];
  const model = (await formulaModel({ ...run, salt })) as Model;
  const before = mx.liveHandles();
  const seen = () => mx.scope(() => model.images!.embed(prompt, model.images!.see(images(4).slice(1))));
  expect(seen).toThrow(UserError);
  expect(seen).toThrow("the images take 25 tokens, but the prompt has 27 with the id 250");
  expect(mx.liveHandles()).toBe(before);
  model.dispose();
});

describe("a configuration is refused", () => {
  test.each([
    [
      "heads that do not divide the width",
      { num_attention_heads: 5 },
      /vision_config.*hidden_size|must be a multiple of 4/,
    ],
    ["a table that is no square", { pos_emb_width: 5 }, /pos_emb_height/],
    ["another number of layers", { layer_types: ["full_attention"] }, /has 1 entries/],
    ["colours that nobody has", { num_channels: 4 }, /num_channels|expected 3/],
  ])("%s", async (_, change, message) => {
    const [{ config }] = runs as [(typeof runs)[number]];
    const { Args } = await architecture("muse_spark");
    const parsed = Args.safeParse({ ...config, vision_config: { ...config.vision_config, ...change } });
    expect(parsed.success).toBe(false);
    expect(parsed.error!.message).toMatch(message);
  });
});
