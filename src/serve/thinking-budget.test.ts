/** A thought that goes on for too long is ended for the model. */
import { expect, test } from "bun:test";
import * as mx from "../mlx";
import { thinkingBudget } from "./thinking-budget";

const thinking = { start: "<t>", end: "</t>", startTokens: [7], endTokens: [8, 9] };

/** The likeliest token of each step, where the model itself would always say 3. */
function said(budget: number, prompt: number[]): number[] {
  const limit = thinkingBudget(budget, thinking);
  const tokens = [...prompt];
  for (let i = 0; i < 6; i++) {
    const next = mx.scope(() => {
      const logits = mx.arange(12, undefined, 1, { dtype: "float32" }).subtract(3).square().negative().expandDims(0);
      return limit(mx.array(tokens, "uint32"), logits).argmax({ axis: -1 }).item();
    });
    tokens.push(next);
  }
  return tokens.slice(prompt.length);
}

test("an open thought is ended by all of its marker", () => {
  const before = mx.liveHandles();
  expect(said(2, [1, 7])).toEqual([3, 3, 8, 9, 3, 3]);
  expect(said(0, [1, 7, 2])).toEqual([8, 9, 3, 3, 3, 3]);
  expect(mx.liveHandles()).toBe(before);
});

test("what is no thought, or ended, goes on", () => {
  expect(said(2, [1, 2])).toEqual([3, 3, 3, 3, 3, 3]);
  expect(said(2, [7, 8, 9])).toEqual([3, 3, 3, 3, 3, 3]);
  expect(said(100, [7])).toEqual([3, 3, 3, 3, 3, 3]);
});
