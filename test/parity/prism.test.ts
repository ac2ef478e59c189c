/** Qwen 3.5 packed in 2 bits with rotated inputs: logits and greedy tokens are Python mlx-lm's. */
import { describe, expect, test } from "bun:test";
import { UserError } from "../../src/errors";
import type { Tensor } from "../../src/mlx";
import * as mx from "../../src/mlx";
import { createModel, type LanguageModel } from "../../src/models";
import type { Layer } from "../../src/nn";
import { decode, row } from "./decode";
import { expectValues, fixture, float32 } from "./fixtures";
import { uniform, weight } from "./weights";

interface Fixture {
  config: { modules: { path: string; block: number }[]; [key: string]: unknown };
  salt: number;
  shapes: Record<string, number[]>;
  prompt: number[];
  columns: number;
  prefill: string;
  steps: { inputs: number[]; logits: string }[];
  greedy: number[];
}

const expected = fixture<Fixture>("prism.json");
const { config, salt, shapes, prompt, columns } = expected;
const packed = new Set(config.modules.map(({ path }) => path));

/** Random words: 16 bits of each of two draws. */
function words(name: string, shape: number[]): Tensor {
  const size = shape.reduce((product, dim) => product * dim, 1);
  const [high, low] = ["high", "low"].map((half) => uniform(`${salt}/${name}/${half}`, size)) as [
    Float32Array,
    Float32Array,
  ];
  const half = (u: number) => Math.trunc((u + 1) * 32768);
  const values = Uint32Array.from(high, (u, i) => half(u) * 65536 + half(low[i]!));
  return mx.array(values, "uint32", shape);
}

/** A parameter's value by the formula of test/oracle/prism.py. */
function parameter(name: string, shape: number[]): Tensor {
  const full = name.replace("language_model.", "");
  const end = full.lastIndexOf(".");
  const [path, kind] = [full.slice(0, end), full.slice(end + 1)];
  if (!packed.has(path)) {
    const value = mx.array(weight(name, shape, salt), "float32", shape);
    return kind === "A_log" ? value : value.astype("float16");
  }
  if (kind === "weight") return words(name, shape);
  if (kind === "signs") {
    return mx.array(
      uniform(`${salt}/${name}`, shape[0]!).map((u) => (u < 0 ? -1 : 1)),
      "float32",
      shape,
    );
  }
  const u = uniform(`${salt}/${path}.scales`, shape[0]! * shape[1]!);
  const scales = mx
    .array(
      u.map((value) => 1 / 16 + Math.fround(value / 64)),
      "float32",
      shape,
    )
    .astype("float16");
  return kind === "scales" ? scales : scales.multiply(-1.5);
}

const checkpoint = () =>
  new Map(Object.entries(shapes).map(([name, shape]): [string, Tensor] => [name, parameter(name, shape)]));

async function prism(): Promise<LanguageModel> {
  const model = await createModel(config, "a test");
  mx.scope(() => model.loadWeights([...model.sanitize(checkpoint())], { strict: true }));
  mx.eval(model.parameters());
  return model;
}

const thinned = (logits: Tensor) =>
  logits
    .astype("float32")
    .at(mx.ellipsis, mx.slice(undefined, undefined, columns))
    .toArray();

describe("a model with rotated layers", () => {
  test("logits of a prompt and of single steps, and greedy tokens, by MLX's own operations", async () => {
    const model = await prism();
    mx.enableCpuKernels(false);
    try {
      mx.scope(() => {
        expectValues(thinned(model.forward(row(prompt))), float32(expected.prefill), { tolerance: 1e-3 });
        const cache = model.makeCache();
        for (const { inputs, logits } of expected.steps) {
          expectValues(thinned(model.forward(row(inputs), { cache })), float32(logits), { tolerance: 1e-3 });
        }
      });
      expect(decode(model, prompt, expected.greedy.length)).toEqual(expected.greedy);
    } finally {
      mx.enableCpuKernels(true);
    }
    model.dispose();
  });

  test("kernels of ours are no further from float32 than Python's", async () => {
    const model = await prism();
    mx.scope(() => {
      const inputs = row(prompt);
      const [, embedding] = model.namedModules().find(([path]) => path.endsWith("embed_tokens"))!;
      const inputEmbeddings = (embedding as unknown as Layer).forward(inputs).astype("float32");
      const exact = thinned(model.forward(inputs, { inputEmbeddings })) as Float32Array;
      const off = (values: ArrayLike<unknown>) =>
        exact.reduce((sum, value, i) => sum + Math.abs(value - Number(values[i])), 0) / exact.length;
      const ours = off(thinned(model.forward(inputs)) as Float32Array);
      expect(ours).toBeGreaterThan(0);
      expect(ours).toBeLessThan(1.3 * off(float32(expected.prefill)));
    });
    model.dispose();
  });

  test("refuses signs that are missing, or no signs", async () => {
    const model = await createModel(config, "a test");
    const name = "language_model.lm_head.signs";
    const changed = (signs: Tensor | null) => {
      const weights = checkpoint();
      weights.delete(name);
      if (signs) weights.set(name, signs);
      return () => model.sanitize(weights);
    };
    mx.scope(() => {
      expect(changed(null)).toThrow(new UserError(`the weights' ${name} is missing`));
      expect(changed(mx.zeros([512]))).toThrow(new UserError(`the weights' ${name} has other values than -1 and 1`));
    });
    model.dispose();
  });
});

describe("a list of packed layers that is wrong", () => {
  const layer = { path: "lm_head", embedding: false, dtype: "float16", block: 512 };
  const cases: [object, string][] = [
    [{ modules: [] }, '"modules" is []'],
    [{ modules: [layer, layer] }, '"modules.1.path" has "lm_head" twice'],
    [{ modules: [{ ...layer, dtype: "float32" }] }, '"modules.0.dtype" is "float32"'],
    [{ modules: [{ ...layer, path: "lm_hat" }] }, '"modules" lists lm_hat as a linear layer without bias'],
    [{ modules: [{ ...layer, embedding: true }] }, '"modules" lists lm_head as an embedding'],
    [{ modules: [{ ...layer, block: 100 }] }, "a layer of 512 inputs cannot be packed with rotations in blocks of 100"],
    [{ modules: [{ ...layer, block: 1024 }] }, "in blocks of 1024"],
    [{ tensor_namespace: "others" }, '"tensor_namespace" is "others", but version 2 has "mlx-vlm-qwen3_5"'],
    [{ quantization: { bits: 4, group_size: 128, mode: "affine" } }, '"quantization.bits" is 4, but must be one of 2'],
    [{ text_config: { ...(config.text_config as object), vocab_size: 0 } }, '"text_config.vocab_size" is 0'],
  ];
  for (const [change, message] of cases) {
    test(message, async () => {
      const before = mx.liveHandles();
      const error = await createModel({ ...config, ...change }, "a test").catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(UserError);
      expect((error as UserError).message).toContain(message);
      expect(mx.liveHandles()).toBe(before);
    });
  }
});
