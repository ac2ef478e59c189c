import { describe, expect, test } from "bun:test";
import { bytesInUse, countExactBytes } from "../../test/exact-bytes";
import { expectValues, fixture, float32 } from "../../test/parity/fixtures";
import { type FormulaModel, formulaModel } from "../../test/parity/formula-model";
import { tinyHybrid, tinyModel } from "../../test/tiny-model";
import { UserError } from "../errors";
import * as mx from "../mlx";
import { type Cache, createModel } from "../models";
import { ArraysCache, CacheList, KVCache, QuantizedKVCache, QuantizedRows, RotatingKVCache } from "../nn";
import { quantizeCaches } from "./kv-quantization";
import { prefill } from "./prefill";
import { generateSteps } from "./step";

countExactBytes();

interface Fixture extends FormulaModel {
  prompt: number[];
  columns: number;
  runs: { bits: number; groupSize: number; start: number; tokens: number[]; logprobs: string }[];
}

const { prompt, columns: everyColumn, runs, ...recipe } = fixture<Fixture>("kv-quantization.json");

describe("a KV cache that is packed while it grows", () => {
  test.each(runs)("$bits bits, groups of $groupSize, from token $start: Python's tokens", async (run) => {
    const model = await formulaModel(recipe);
    const before = mx.liveHandles();
    const tokens: number[] = [];
    const rows: number[] = [];
    const steps = generateSteps(model, prompt, { maxTokens: run.tokens.length, kvQuantization: run, logprobs: true });
    for await (const { token, logprobs } of steps) {
      tokens.push(token);
      mx.scope(() =>
        rows.push(...(logprobs!.at(mx.slice(undefined, undefined, everyColumn)).toArray() as Float32Array)),
      );
      logprobs!.dispose();
    }
    expect(tokens).toEqual(run.tokens);
    // A value that lies between two codes falls to either by its last bit, which differs from processor to processor.
    expectValues(rows, float32(run.logprobs), { tolerance: 2e-2 });
    expect(mx.liveHandles()).toBe(before);
    model.dispose();
  });

  test("is packed within the prompt already, from the token that was asked for", async () => {
    const model = await formulaModel(recipe);
    for (const [start, type] of [
      [prompt.length - 1, QuantizedKVCache],
      [prompt.length, KVCache],
    ] as const) {
      const cache = model.makeCache();
      const options = { prefillStepSize: 4, kvQuantization: { bits: 8, groupSize: 64, start } };
      (await prefill(model, prompt, cache, options)).dispose();
      for (const layer of cache) expect(layer).toBeInstanceOf(type);
      for (const layer of cache) layer.dispose();
    }
    model.dispose();
  });

  test("sliding windows stay as they are", async () => {
    const config = { ...recipe.config, sliding_window: 8, layer_types: ["sliding_attention", "full_attention"] };
    const model = await createModel(config, "a test");
    const cache = model.makeCache();
    const kvQuantization = { bits: 8, groupSize: 64, start: 0 };
    for await (const _ of generateSteps(model, prompt, { maxTokens: 4, cache, kvQuantization }));
    expect(cache[0]).toBeInstanceOf(RotatingKVCache);
    expect(cache[1]).toBeInstanceOf(QuantizedKVCache);
    for (const layer of cache) layer.dispose();
    model.dispose();
  });

  test("recurrent states stay as they are", async () => {
    const model = await tinyModel({ ...tinyHybrid, head_dim: 32 });
    const cache = model.makeCache();
    const kvQuantization = { bits: 8, groupSize: 32, start: 0 };
    for await (const _ of generateSteps(model, [1, 2, 3, 4], { maxTokens: 4, cache, kvQuantization }));
    expect(cache.map((layer) => layer.constructor)).toEqual([ArraysCache, ArraysCache, ArraysCache, QuantizedKVCache]);
    for (const layer of cache) layer.dispose();
    model.dispose();
  });

  test.each([
    [{ bits: 7, groupSize: 64 }, "7"],
    [{ bits: 4, groupSize: 48 }, "48"],
    [{ bits: 4, groupSize: 128 }, "128"],
  ])("%p does not fit", async (how, problem) => {
    const model = await formulaModel(recipe);
    const before = mx.liveHandles();
    const run = async () => {
      for await (const _ of generateSteps(model, prompt, { kvQuantization: { ...how, start: 0 } }));
    };
    const error = await run().catch((thrown) => thrown);
    expect(error).toBeInstanceOf(UserError);
    expect(error.message).toContain(problem);
    expect(error.hint).toContain("--kv-bits");
    expect(mx.liveHandles()).toBe(before);
    model.dispose();
  });
});

/** Keys and values (1, 1, T, D) of these sizes. */
const columns = (count: number, ...[keys, values]: [number, number]): [mx.Tensor, mx.Tensor] => [
  mx.ones([1, 1, count, keys]),
  mx.ones([1, 1, count, values]),
];

test("a hybrid model's attention is packed, its recurrent state, windows and lists are not", () => {
  const before = mx.liveHandles();
  const arrays = new ArraysCache(2);
  const full = new KVCache();
  const window = new RotatingKVCache(4);
  const short = new KVCache();
  const list = new CacheList([new ArraysCache(1), new KVCache()]);
  mx.scope(() => {
    arrays.put(0, mx.ones([1, 3]));
    // As in latent attention: the values are half of the keys.
    full.update(...columns(5, 128, 64));
    window.update(...columns(5, 64, 64));
    short.update(...columns(2, 64, 64));
    (list.parts[1] as KVCache).update(...columns(5, 64, 64));
  });
  const layers: Cache[] = [arrays, full, window, short, list];
  quantizeCaches(layers, { bits: 8, groupSize: 64, start: 3 });
  expect(layers.map((layer) => layer.constructor)).toEqual([
    ArraysCache,
    QuantizedKVCache,
    RotatingKVCache,
    KVCache,
    CacheList,
  ] as never);
  mx.scope(() => {
    const [keys, values] = (layers[1] as QuantizedKVCache).update(...columns(1, 128, 64));
    expect([keys, values].map((rows) => (rows as QuantizedRows).parts[0].shape)).toEqual([
      [1, 1, 6, 32],
      [1, 1, 6, 16],
    ]);
    expect(keys).toBeInstanceOf(QuantizedRows);
  });
  for (const layer of layers) layer.dispose();
  expect(mx.liveHandles()).toBe(before);
});

/** Keys (1, 2, T, 64) and values that differ from token to token. */
function tokens(first: number, count: number): [mx.Tensor, mx.Tensor] {
  const keys = mx.sin(mx.arange(first * 128, (first + count) * 128, 1, { dtype: "float32" }));
  const heads = keys.reshape(1, count, 2, 64).transpose(0, 2, 1, 3);
  return [heads, heads.negative()];
}

describe("the packed cache", () => {
  const how = { bits: 4, groupSize: 32 };
  const parts = (cache: QuantizedKVCache, first: number, count: number) =>
    mx.scope(() => cache.update(...tokens(first, count)).flatMap(({ parts }) => parts.map((part) => part.toList())));
  const packed = (cache: KVCache, first: number, count: number) =>
    mx.scope(() =>
      cache.update(...tokens(first, count)).flatMap((x) => mx.quantize(x, how).map((part) => part!.toList())),
    );

  test("holds what packing everything at once gives, over growth and trims", () => {
    const quantized = new QuantizedKVCache(how);
    const plain = new KVCache();
    let at = 0;
    for (const [count, trim] of [
      [3, 1],
      [1, 0],
      [255, 7],
      [300, 270],
      [1, 30],
      [2, 0],
    ] as const) {
      expect(parts(quantized, at, count)).toEqual(packed(plain, at, count));
      expect(quantized.trim(trim)).toBe(plain.trim(trim));
      at += count - trim;
      expect({ offset: quantized.offset, size: quantized.size }).toEqual({ offset: at, size: at });
    }
    quantized.dispose();
    plain.dispose();
  });

  test("moves to another cache with its state", () => {
    const from = new QuantizedKVCache(how);
    parts(from, 0, 5);
    const to = new QuantizedKVCache();
    to.state = from.state;
    from.dispose();
    const whole = new KVCache();
    packed(whole, 0, 5);
    expect(parts(to, 5, 2)).toEqual(packed(whole, 5, 2));
    expect(to.nbytes).toBeLessThan(whole.nbytes);
    to.dispose();
    whole.dispose();
  });

  test("2,000 tokens leave no handle behind, and memory grows with the buffers only", () => {
    const cache = new QuantizedKVCache(how);
    const step = (at: number) => {
      mx.scope(() => void cache.update(...tokens(at, 1)));
      mx.eval(cache.state);
    };
    step(0);
    const handles = mx.liveHandles();
    for (let at = 1; at < 2000; at++) step(at);
    expect(mx.liveHandles()).toBe(handles);
    mx.resetPeakMemory();
    const before = bytesInUse();
    for (let at = 2000; at < 2040; at++) step(at);
    expect(mx.peakMemory() - before).toBeLessThan(cache.nbytes / 4);
    cache.dispose();
  });
});
