/** How many tokens of a prompt are read at a time where nobody says it. */
import { expect, test } from "bun:test";
import { fixture } from "../../test/parity/fixtures";
import { type FormulaModel, formulaModel } from "../../test/parity/formula-model";
import type * as mx from "../mlx";
import { shardModel } from "../nn";
import { prefill, usualStepSize } from "./prefill";

const tiny = () => formulaModel(fixture<FormulaModel>("models/llama.json"));

test("a process alone reads 2,048 tokens at a time", async () => {
  const model = await tiny();
  expect(usualStepSize(model)).toBe(2048);
  const cache = model.makeCache();
  const read: number[] = [];
  const prompt = Array.from({ length: 2060 }, (_, i) => i % 256);
  (await prefill(model, prompt, cache, { onPrefill: (done) => read.push(done) })).dispose();
  expect(read).toEqual([0, 2048, 2059]);
  for (const layer of cache) layer.dispose();
  model.dispose();
});

test.each([
  ["GPUs that share a model read twice as many", true, 4096],
  ["processes without NCCL keep 2,048", false, 2048],
])("%s", async (_, isNccl, tokens) => {
  const model = await tiny();
  // Its messages are never sent.
  shardModel(model, { rank: 0, size: 2, isNccl } as mx.distributed.Group);
  expect(usualStepSize(model)).toBe(tokens);
  model.dispose();
});
