/** Tiny models with weights by formula: logits, greedy tokens and sampled tokens are Python mlx-lm's. */
import { describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import type { Tensor } from "../../src/mlx";
import * as mx from "../../src/mlx";
import { isQuantizable, type Module, quantize } from "../../src/nn";
import { makeSampler } from "../../src/sample";
import { boundBySums } from "../processor";
import { decode, following, row } from "./decode";
import { expectValues, fixture, float32 } from "./fixtures";
import { type FormulaModel, formulaModel } from "./formula-model";

/** Logits are base64 float32; of each position every `columns`-th is kept. */
interface Fixture extends FormulaModel {
  prompt: number[];
  columns: number;
  prefill: { logits: string; last: string };
  steps: { inputs: number[]; logits: string }[];
  batch: { inputs: number[][]; logits: string };
  float32: { greedy: number[] };
  bfloat16: { logits: string; greedy: number[] };
  affine4: { logits: string; greedy: number[] };
  seed: number;
  sampled: Record<string, { options: Record<string, number | number[]>; tokens: number[] }>;
}

const quantization = {
  groupSize: 32,
  bits: 4,
  /** Layers whose rows are no whole groups stay, as convert leaves them. */
  predicate: (_: string, layer: Module) => isQuantizable(layer) && layer.weight.dim(-1) % 32 === 0,
};

const camelCase = (name: string) => name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());

const folder = new URL("../fixtures/models/", import.meta.url);
for (const file of readdirSync(folder).sort()) {
  const expected = fixture<Fixture>(`models/${file}`);
  const { prompt, columns } = expected;
  // Kimi K3 amplifies rounding: Python's logits of the batch are up to 1.5e-4 from float64's, ours up to 1.0e-4.
  const tolerance = file === "kimi_k3.json" ? boundBySums(1e-4, 3e-4) : 1e-4;
  const thinned = (logits: Tensor) => logits.at(mx.ellipsis, mx.slice(undefined, undefined, columns)).toArray();

  describe(file.replace(".json", ""), () => {
    test("logits of a prompt, of single steps and of a batch", async () => {
      const model = await formulaModel(expected);
      mx.scope(() => {
        const logits = model.forward(row(prompt));
        expectValues(thinned(logits), float32(expected.prefill.logits), { tolerance });
        expectValues(logits.at(0, -1).toArray(), float32(expected.prefill.last), { tolerance });

        const cache = model.makeCache();
        for (const step of expected.steps) {
          const logits = model.forward(row(step.inputs), { cache });
          expectValues(thinned(logits), float32(step.logits), { tolerance });
        }
        const batch = model.forward(mx.array(expected.batch.inputs, "uint32"));
        expectValues(thinned(batch), float32(expected.batch.logits), { tolerance });
      });
      model.dispose();
    });

    test("greedy tokens in float32", async () => {
      const model = await formulaModel(expected);
      expect(decode(model, prompt, expected.float32.greedy.length)).toEqual(expected.float32.greedy);
      model.dispose();
    });

    test("greedy tokens in bfloat16, by MLX's own operations", async () => {
      const model = await formulaModel(expected, "bfloat16");
      // How a processor's sums round decides between tokens that are next to each other in bfloat16.
      const wanted = float32(expected.bfloat16.logits);
      const highest = wanted.reduce((most, logit) => Math.max(most, Math.abs(logit)), 0);
      const rounding = 2 ** -7 * highest;
      mx.enableCpuKernels(false);
      try {
        mx.scope(() => {
          const logits = thinned(model.forward(row(prompt)));
          expectValues(logits, wanted, { tolerance: 2e-2 });
        });
        const { sampler, behind } = following(expected.bfloat16.greedy);
        decode(model, prompt, expected.bfloat16.greedy.length, sampler);
        for (const distance of behind) expect(distance).toBeLessThanOrEqual(rounding);
      } finally {
        mx.enableCpuKernels(true);
      }
      model.dispose();
    });

    test("bfloat16 by kernels of ours is no further from float32 than Python's", async () => {
      const model = await formulaModel(expected, "bfloat16");
      const logits = () => mx.scope(() => thinned(model.forward(row(prompt)).astype("float32")) as Float32Array);
      const ours = logits();
      const floating = model.namedParameters().filter(([, x]) => mx.isFloating(x.dtype));
      mx.scope(() => model.update(floating.map(([name, x]) => [name, x.astype("float32")])));
      const exact = logits();
      const off = (values: Float32Array) =>
        values.reduce((sum, value, i) => sum + Math.abs(value - exact[i]!), 0) / exact.length;
      expect(off(ours)).toBeLessThan(1.5 * off(float32(expected.bfloat16.logits)));
      model.dispose();
    });

    test("greedy tokens with 4-bit weights", async () => {
      const model = await formulaModel(expected);
      quantize(model, quantization);
      mx.scope(() => {
        const logits = thinned(model.forward(row(prompt)));
        expectValues(logits, float32(expected.affine4.logits), { tolerance: 2e-4 });
      });
      expect(decode(model, prompt, expected.affine4.greedy.length)).toEqual(expected.affine4.greedy);
      model.dispose();
    });

    for (const [kind, { options, tokens }] of Object.entries(expected.sampled)) {
      test(`sampled tokens: ${kind}`, async () => {
        const model = await formulaModel(expected);
        const sampler = makeSampler(Object.fromEntries(Object.entries(options).map(([k, v]) => [camelCase(k), v])));
        mx.random.seed(expected.seed);
        expect(decode(model, prompt, tokens.length, sampler)).toEqual(tokens);
        model.dispose();
      });
    }
  });
}
