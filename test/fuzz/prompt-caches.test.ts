import { expect, test } from "bun:test";
import * as mx from "../../src/mlx";
import { fuzzPromptCaches } from "./prompt-caches";

test("500 malformed prompt-cache files end in an answer or in words of ours, and leave nothing behind", async () => {
  await fuzzPromptCaches(1, 1);
  const before = mx.liveHandles();
  const { continued, refused } = await fuzzPromptCaches(500, 2);
  expect(continued).toBeGreaterThan(20);
  expect(refused).toBeGreaterThan(300);
  expect(mx.liveHandles()).toBe(before);
});
