import { describe, expect, test } from "bun:test";
import { bytesInUse, countExactBytes } from "../../test/exact-bytes";
import { tinyModel } from "../../test/tiny-model";
import { ExitCode } from "../errors";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import type { LogitsProcessor } from "../sample";
import { generateSteps, type StepOptions } from "./step";

countExactBytes();

async function tokensOf(model: LanguageModel, prompt: number[], options: StepOptions): Promise<number[]> {
  const tokens: number[] = [];
  for await (const step of generateSteps(model, prompt, options)) {
    tokens.push(step.token);
    step.logprobs?.dispose();
  }
  return tokens;
}

const record =
  (into: number[][]): LogitsProcessor =>
  (tokens, logits) => {
    into.push([...(tokens.toArray() as Uint32Array)]);
    return logits;
  };

/** One forward pass over everything for each token: slow, and with no state to get wrong. */
function naively(model: LanguageModel, prompt: number[], count: number): number[] {
  const all = [...prompt];
  for (let n = 0; n < count; n++) {
    all.push(
      mx.scope(() =>
        model
          .forward(mx.array([all], "uint32"))
          .at(":", -1)
          .argmax({ axis: -1 })
          .item(),
      ),
    );
  }
  return all.slice(prompt.length);
}

describe("generateSteps", () => {
  test("gives what one pass over everything gives, whatever the prefill step", async () => {
    const model = await tinyModel();
    const prompt = Array.from({ length: 23 }, (_, i) => (i * 31) % 97);
    const expected = naively(model, prompt, 12);
    for (const prefillStepSize of [1, 5, 22, 2048]) {
      expect(await tokensOf(model, prompt, { maxTokens: 12, prefillStepSize })).toEqual(expected);
    }
    model.dispose();
  });

  test("a sliding window prefilled in any steps gives the same tokens", async () => {
    const model = await tinyModel({ layer_types: ["sliding_attention", "full_attention"], sliding_window: 8 });
    const prompt = Array.from({ length: 40 }, (_, i) => (i * 17) % 97);
    const expected = naively(model, prompt, 12);
    for (const prefillStepSize of [3, 8, 2048]) {
      expect(await tokensOf(model, prompt, { maxTokens: 12, prefillStepSize })).toEqual(expected);
    }
    model.dispose();
  });

  test("continues a cache where it ended: N tokens later it holds prompt and N tokens", async () => {
    const model = await tinyModel();
    const prompt = [5, 6, 7, 8];
    const expected = naively(model, prompt, 9);
    const cache = model.makeCache();
    const first = await tokensOf(model, prompt, { maxTokens: 4, cache });
    expect(first).toEqual(expected.slice(0, 4));
    expect(cache[0]!.size).toBe(prompt.length + 4);
    for (const layer of cache) layer.trim(1);
    expect(await tokensOf(model, first.slice(-1), { maxTokens: 5, cache })).toEqual(expected.slice(4));
    for (const layer of cache) layer.dispose();
    model.dispose();
  });

  test("processors see the prompt and every token so far", async () => {
    const model = await tinyModel();
    const seen: number[][] = [];
    const options: StepOptions = {
      maxTokens: 3,
      logitsProcessors: [record(seen)],
    };
    const prompt = [9, 8, 7];
    const tokens = await tokensOf(model, prompt, options);
    expect(seen.slice(0, 3)).toEqual([prompt, [...prompt, tokens[0]!], [...prompt, tokens[0]!, tokens[1]!]]);
    const single: number[][] = [];
    await tokensOf(model, [4], { ...options, logitsProcessors: [record(single)] });
    expect(single[0]).toEqual([4]);
    model.dispose();
  });

  test("reports prefill, ends when it is told to, refuses an empty prompt", async () => {
    const model = await tinyModel();
    const progress: [number, number][] = [];
    const prompt = [1, 2, 3, 4, 5, 6];
    await tokensOf(model, prompt, { maxTokens: 1, prefillStepSize: 2, onPrefill: (...at) => progress.push(at) });
    expect(progress).toEqual([
      [0, 6],
      [2, 6],
      [4, 6],
      [5, 6],
      [6, 6],
    ]);

    const controller = new AbortController();
    const tokens: number[] = [];
    for await (const { token } of generateSteps(model, prompt, { maxTokens: -1, signal: controller.signal })) {
      tokens.push(token);
      if (tokens.length === 3) controller.abort();
    }
    expect(tokens.length).toBe(3);
    expect(tokensOf(model, [], {})).rejects.toThrow(/prompt is empty/);
    model.dispose();
  });

  test("1,000 steps, early exits and aborts leave no tensor behind", async () => {
    const model = await tinyModel();
    mx.eval(mx.random.state.get());
    await tokensOf(model, [1, 2, 3], { maxTokens: 5 });
    const before = mx.liveHandles();
    await tokensOf(model, [1, 2, 3], { maxTokens: 1000 });
    expect(mx.liveHandles()).toBe(before);
    for await (const step of generateSteps(model, [1, 2, 3], { maxTokens: 50, logprobs: true })) {
      step.logprobs!.dispose();
      if (step.token >= 0) break;
    }
    expect(mx.liveHandles()).toBe(before);
    model.dispose();
    expect(mx.liveHandles()).toBeLessThan(before);
  });

  test("memory does not grow over decode steps", async () => {
    const model = await tinyModel();
    const cache = model.makeCache();
    const samples: number[] = [];
    let n = 0;
    // Within one block of the cache, so that its own growth does not count.
    for await (const _ of generateSteps(model, [1, 2], { maxTokens: 200, cache })) {
      if (n++ % 20 === 10) samples.push(bytesInUse());
    }
    expect(Math.max(...samples) - Math.min(...samples)).toBe(0);
    for (const layer of cache) layer.dispose();
    model.dispose();
  });

  test("takes embeddings in place of the tokens' own", async () => {
    const model = await tinyModel();
    const prompt = [3, 14, 15, 92, 65];
    const table = (model as unknown as { model: { embed_tokens: { weight: mx.Tensor } } }).model.embed_tokens.weight;
    const expected = await tokensOf(model, prompt, { maxTokens: 6 });
    const other = [35, 89, 79, 32, 38];
    const inputEmbeddings = mx.take(table, prompt, { axis: 0 });
    for (const prefillStepSize of [1, 3, 2048]) {
      expect(await tokensOf(model, other, { maxTokens: 6, inputEmbeddings, prefillStepSize })).toEqual(expected);
    }
    await expect(tokensOf(model, [1, 2], { inputEmbeddings })).rejects.toThrow("have the shape (5, 32), for 2 tokens");
    inputEmbeddings.dispose();
    model.dispose();
  });

  test("stops with an error when more memory is in use than allowed", async () => {
    const model = await tinyModel();
    const before = mx.liveHandles();
    for (const prompt of [[1], [1, 2, 3]]) {
      const error = await tokensOf(model, prompt, { maxMemory: 1000 }).catch((thrown) => thrown);
      expect(error.message).toMatch(/^0\.\d{3} GB of memory are in use, more than the 0\.000 GB that are allowed/);
      expect(error.code).toBe(ExitCode.resources);
    }
    expect((await tokensOf(model, [1], { maxTokens: 3, maxMemory: 1e12 })).length).toBe(3);
    expect(mx.liveHandles()).toBe(before);
    model.dispose();
  });
});
