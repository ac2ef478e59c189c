import { expect, test } from "bun:test";
import * as mx from ".";
import { nextLimit } from "./run-ahead";

test("a limit rises for a step that needed far more, and not for one that went a little over it", () => {
  expect(nextLimit(10e9, 9e9)).toBe(10e9);
  expect(nextLimit(10e9, 10.5e9)).toBe(10e9);
  expect(nextLimit(10e9, 14e9)).toBe(16e9);
});

test("the limit of memory is what it was, also behind work that throws", () => {
  const limit = mx.memoryLimit();
  const memory = new mx.StepMemory();
  expect(mx.sparingly(() => 1)).toBe(1);
  expect(memory.run(() => 2)).toBe(2);
  expect(memory.run(() => 3)).toBe(3);
  const fails = () => {
    throw new Error("no");
  };
  expect(() => mx.sparingly(fails)).toThrow("no");
  expect(() => memory.run(fails)).toThrow("no");
  expect(mx.memoryLimit()).toBe(limit);
});
