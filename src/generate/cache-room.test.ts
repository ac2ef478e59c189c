import { expect, test } from "bun:test";
import { bytesInUse, countExactBytes } from "../../test/exact-bytes";
import { tinyHybrid, tinyMamba, tinyModel } from "../../test/tiny-model";
import * as mx from "../mlx";
import { cacheBytes, checkCacheRoom } from "./cache-room";

countExactBytes();

const window = {
  model_type: "gemma3_text",
  head_dim: 8,
  sliding_window: 64,
  sliding_window_pattern: 2,
  query_pre_attn_scalar: 8,
};

test("the bytes of caches follow from shapes, and nothing is computed", async () => {
  const model = await tinyModel();
  const before = { handles: mx.liveHandles(), bytes: bytesInUse() };
  // Two layers, keys and values, two heads of 8 float32.
  const perToken = 2 * 2 * 2 * 8 * 4;
  for (const tokens of [256, 16_384, 20_000, 1e12]) expect(cacheBytes(model, tokens)).toBe(tokens * perToken);
  // Buffers grow by 256 tokens.
  expect(cacheBytes(model, 1)).toBe(256 * perToken);
  expect({ handles: mx.liveHandles(), bytes: bytesInUse() }).toEqual(before);
});

test("a sliding window and a recurrent state do not grow", async () => {
  const perLayer = 2 * 2 * 8 * 4;
  const sliding = cacheBytes(await tinyModel(window), 1e9);
  // One layer of two attends to all.
  expect(sliding).toBeGreaterThanOrEqual(1e9 * perLayer);
  expect(sliding).toBeLessThan(1.01 * 1e9 * perLayer);
  const mamba = await tinyModel(tinyMamba);
  expect(cacheBytes(mamba, 1e9)).toBe(cacheBytes(mamba, 100));
  const hybrid = await tinyModel(tinyHybrid);
  const grown = cacheBytes(hybrid, 2e6) - cacheBytes(hybrid, 1e6);
  expect(grown).toBe(1e6 * perLayer);
});

test("more tokens than the memory has room for are refused at once", async () => {
  const model = await tinyModel();
  checkCacheRoom(model, 1000, { available: 1e6 });
  expect(() => checkCacheRoom(model, 1e9, { available: 16e9 })).toThrow(
    "the cache of 1000000000 tokens would need 256 GB of memory, and 16 GB are free",
  );
  expect(() => checkCacheRoom(model, 1e6, { sequences: 100, available: 16e9 })).toThrow("the caches of 100 times");
});
