import { expect, test } from "bun:test";
import * as mx from ".";

test.skipIf(mx.isAvailable("cuda"))("without CUDA all freed memory goes back", () => {
  mx.scope(() => mx.eval(mx.ones([1 << 20])));
  expect(mx.cacheMemory()).toBeGreaterThan(0);
  mx.clearSurplus();
  expect(mx.cacheMemory()).toBe(0);
});

test.skipIf(!mx.isAvailable("cuda"))("CUDA keeps what a GPU can spare", () => {
  mx.clearCache();
  mx.scope(() => mx.eval(mx.ones([1 << 20])));
  mx.clearSurplus();
  expect(mx.cacheMemory()).toBeGreaterThan(0);
});
