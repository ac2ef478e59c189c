/** gpt-oss, DeepSeek V3 and Qwen 2 with caches that forget and caches that are packed. */
import { describe, expect, test } from "bun:test";
import { quantizeCaches } from "../../src/generate/kv-quantization";
import { generateSteps } from "../../src/generate/step";
import * as mx from "../../src/mlx";
import type { LanguageModel } from "../../src/models";
import { QuantizedKVCache } from "../../src/nn";
import { row } from "./decode";
import { fixture } from "./fixtures";
import { type FormulaModel, formulaModel } from "./formula-model";

interface Run {
  options: { max_kv_size?: number; kv_bits?: number; quantized_kv_start?: number };
  tokens: number[];
}

const models = fixture<Record<string, FormulaModel & { prompt: number[]; runs: Run[] }>>("limited-caches.json");

for (const [name, { prompt, runs, ...recipe }] of Object.entries(models)) {
  describe(name, () => {
    test.each(runs)("$options: Python's tokens", async ({ options, tokens: expected }) => {
      const model = await formulaModel(recipe);
      const before = mx.liveHandles();
      const { max_kv_size: maxSize, kv_bits: bits, quantized_kv_start: start = 0 } = options;
      const cache = model.makeCache({ maxSize });
      const kvQuantization = bits ? { bits, groupSize: 64, start } : undefined;
      const tokens: number[] = [];
      const steps = generateSteps(model, prompt, { maxTokens: expected.length, cache, kvQuantization });
      for await (const { token } of steps) tokens.push(token);
      expect(tokens).toEqual(expected);
      for (const layer of cache) layer.dispose();
      expect(mx.liveHandles()).toBe(before);
      model.dispose();
    });

    test("keys and values of few bits change log-probabilities by no more than their rounding", async () => {
      const model = await formulaModel(recipe);
      const before = mx.liveHandles();
      const [fine, coarse] = [8, 4].map((bits) => mx.scope(() => distances(model, prompt, bits)));
      for (const i of [0, 1]) {
        // A step of 4 bits is 17 times as wide as one of 8.
        expect(fine![i]!).toBeGreaterThan(0);
        expect(fine![i]!).toBeLessThan(coarse![i]! / 8);
        expect(fine![i]!).toBeLessThan(0.1);
      }
      expect(mx.liveHandles()).toBe(before);
      model.dispose();
    });
  });
}

/** How far log-probabilities are from those of unpacked caches: for several tokens at once, and for one after them. */
function distances(model: LanguageModel, prompt: readonly number[], bits: number): number[] {
  const [plain, packed] = [model.makeCache(), model.makeCache()];
  for (const cache of [plain, packed]) model.forward(row(prompt.slice(0, 5)), { cache });
  quantizeCaches(packed, { bits, groupSize: 64, start: 0 });
  expect(packed.some((layer) => layer instanceof QuantizedKVCache)).toBe(true);
  const far = [prompt.slice(5, -1), prompt.slice(-1)].map((tokens) => {
    const [expected, actual] = [plain, packed].map((cache) => {
      const logits = model.forward(row(tokens), { cache });
      return logits.subtract(logits.logsumexp({ axis: -1, keepdims: true }));
    }) as [mx.Tensor, mx.Tensor];
    return actual.subtract(expected).abs().mean().item();
  });
  for (const layer of [...plain, ...packed]) layer.dispose();
  return far;
}
