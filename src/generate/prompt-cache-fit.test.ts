import { describe, expect, test } from "bun:test";
import { UserError } from "../errors";
import * as mx from "../mlx";
import { type Cache, createModel, type LanguageModel } from "../models";
import { ArraysCache, CacheList, KVCache, RotatingKVCache } from "../nn";
import { checkCacheOf, packingOf, tokensIn } from "./prompt-cache-fit";
import { generateSteps } from "./step";

const config = {
  model_type: "llama",
  hidden_size: 64,
  num_hidden_layers: 2,
  intermediate_size: 64,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 32,
  vocab_size: 32,
  rms_norm_eps: 1e-5,
};
const model = await createModel(config, "a test");
const windows = await createModel(
  { ...config, sliding_window: 4, layer_types: ["sliding_attention", "full_attention"] },
  "a test",
);

const dispose = (cache: readonly Cache[]) => {
  for (const layer of cache) layer.dispose();
};

/** The caches after some tokens. */
async function after(of: LanguageModel, cache: Cache[], options = {}): Promise<Cache[]> {
  for await (const _ of generateSteps(of, [1, 2, 3, 4, 5, 6], { maxTokens: 2, cache, ...options }));
  return cache;
}

/** What is wrong with a cache for a model; it is disposed of. */
function misfit(of: LanguageModel, cache: Cache[]): UserError | null {
  const before = mx.liveHandles();
  try {
    checkCacheOf(of, { cache, metadata: {} }, "/somewhere/book.safetensors");
    return null;
  } catch (error) {
    expect(error).toBeInstanceOf(UserError);
    return error as UserError;
  } finally {
    expect(mx.liveHandles()).toBe(before);
    dispose(cache);
  }
}

/** Keys and values (batch, heads, rows, size) of ones. */
function filled(shape: number[], valueSize = shape[3]!): KVCache {
  const cache = new KVCache();
  mx.scope(() => void cache.update(mx.ones(shape), mx.ones([...shape.slice(0, 3), valueSize])));
  return cache;
}

const kvQuantization = { bits: 4, groupSize: 32, start: 0 };

describe("a model goes on from", () => {
  test.each<[name: string, cache: () => Promise<Cache[]>, of?: LanguageModel]>([
    ["its own caches", () => after(model, model.makeCache())],
    ["empty ones", async () => model.makeCache()],
    ["those of a limited size", () => after(model, model.makeCache({ maxSize: 5 }))],
    ["packed ones", () => after(model, model.makeCache(), { kvQuantization })],
    ["windows beside full attention", () => after(windows, windows.makeCache()), windows],
    ["the same, packed", () => after(windows, windows.makeCache(), { kvQuantization }), windows],
  ])("%s", async (_, cache, of = model) => {
    expect(misfit(of, await cache())).toBeNull();
  });
});

describe("a model refuses", () => {
  test.each<[name: string, cache: () => Cache[], problem: RegExp]>([
    ["another number of layers", () => [filled([1, 2, 3, 32])], /has 1 layers, not 2/],
    [
      "other heads",
      () => [filled([1, 2, 3, 32]), filled([1, 1, 3, 32])],
      /layer 1 .*\(1, 1, 256, 32\).*\(1, 2, 256, 32\)/,
    ],
    ["heads of another size", () => [filled([1, 2, 3, 16]), filled([1, 2, 3, 16])], /layer 0 /],
    ["other values", () => [filled([1, 2, 3, 32], 16), filled([1, 2, 3, 32], 16)], /layer 0 .*state\.1/],
    ["a batch", () => [filled([2, 2, 3, 32]), filled([2, 2, 3, 32])], /layer 0 .*\(2, 2/],
    [
      "recurrent state",
      () => [new ArraysCache(2), new ArraysCache(2)],
      /it is a ArraysCache, and the model's a KVCache/,
    ],
    ["lists", () => [new CacheList([new KVCache()]), new CacheList([new KVCache()])], /it is a CacheList/],
    [
      "layers of different lengths",
      () => [filled([1, 2, 3, 32]), filled([1, 2, 4, 32])],
      /layer 1 has read other tokens/,
    ],
    ["a ring beside a plain cache", () => [new RotatingKVCache(8), new KVCache()], /layer 1 .* holds them otherwise/],
  ])("%s", (_, cache, problem) => {
    const error = misfit(model, cache());
    expect(error?.message).toStartWith("book.safetensors is the cache of another model: ");
    expect(error?.message).toMatch(problem);
    expect(error?.hint).toContain("--model");
  });
});

test("tokens and packing are found in lists too", async () => {
  const packed = await after(model, model.makeCache(), { kvQuantization });
  const plain = filled([1, 2, 3, 32]);
  const list = new CacheList<Cache>([new ArraysCache(1), plain]);
  expect([tokensIn([list]), tokensIn([new ArraysCache(1)])]).toEqual([3, 0]);
  expect(packingOf([list])).toBeUndefined();
  expect(packingOf([list, new CacheList(packed)])).toEqual({ bits: 4, groupSize: 32 });
  dispose([list, ...packed]);
});
