import { afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { tinyModel } from "../../test/tiny-model";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { makeLogitsProcessors } from "../sample";
import { type SpeculativeOptions, speculativeSteps } from "./speculative";
import { generateSteps, type StepOptions } from "./step";

const prompt = Array.from({ length: 9 }, (_, i) => (i * 31) % 97);

async function plainly(target: LanguageModel, options: StepOptions): Promise<number[]> {
  const tokens: number[] = [];
  for await (const { token } of generateSteps(target, prompt, options)) tokens.push(token);
  return tokens;
}

async function speculatively(target: LanguageModel, draft: LanguageModel, options: SpeculativeOptions) {
  const tokens: number[] = [];
  let fromDraft = 0;
  for await (const step of speculativeSteps(target, draft, prompt, options)) {
    tokens.push(step.token);
    step.logprobs?.dispose();
    fromDraft += Number(step.fromDraft);
  }
  return { tokens, fromDraft };
}

// The generator's key lives on from the first number that is drawn.
beforeAll(() => mx.random.seed(0));

let before: number;
beforeEach(() => {
  before = mx.liveHandles();
});
afterEach(() => expect(mx.liveHandles()).toBe(before));

describe("speculativeSteps", () => {
  for (const numDraftTokens of [1, 2, 5]) {
    test(`gives plain greedy tokens with ${numDraftTokens} drafts, whoever drafts`, async () => {
      const [target, other] = [
        await tinyModel({}, { seed: 3 }),
        await tinyModel({ num_hidden_layers: 1 }, { seed: 4 }),
      ];
      const twin = await tinyModel({}, { seed: 3 });
      for (const maxTokens of [1, 2, 24]) {
        const expected = await plainly(target, { maxTokens });
        const byOther = await speculatively(target, other, { maxTokens, numDraftTokens });
        expect(byOther.tokens).toEqual(expected);
        const byTwin = await speculatively(target, twin, { maxTokens, numDraftTokens });
        expect(byTwin.tokens).toEqual(expected);
        // A twin is always right: all but one token a round are its own.
        expect(byTwin.fromDraft).toBe(maxTokens - Math.floor(maxTokens / (numDraftTokens + 1)));
      }
      for (const one of [target, other, twin]) one.dispose();
    });
  }

  test("with logits processors, which see the prompt too", async () => {
    const [target, draft] = [await tinyModel({}, { seed: 3 }), await tinyModel({}, { seed: 3 })];
    const logitsProcessors = () => makeLogitsProcessors({ repetitionPenalty: 1.4, repetitionContextSize: 12 });
    const expected = await plainly(target, { maxTokens: 20, logitsProcessors: logitsProcessors() });
    expect(expected).not.toEqual(await plainly(target, { maxTokens: 20 }));
    const { tokens, fromDraft } = await speculatively(target, draft, {
      maxTokens: 20,
      logitsProcessors: logitsProcessors(),
    });
    expect(tokens).toEqual(expected);
    expect(fromDraft).toBeGreaterThan(10);
    for (const one of [target, draft]) one.dispose();
  });

  test("over the end of a sliding window", async () => {
    const sliding = { layer_types: ["sliding_attention", "full_attention"], sliding_window: 16 };
    const [target, draft] = [await tinyModel(sliding, { seed: 3 }), await tinyModel(sliding, { seed: 3 })];
    const expected = await plainly(target, { maxTokens: 30 });
    const { tokens, fromDraft } = await speculatively(target, draft, { maxTokens: 30, numDraftTokens: 3 });
    expect(tokens).toEqual(expected);
    expect(fromDraft).toBeGreaterThan(0);
    for (const one of [target, draft]) one.dispose();
  });

  test("hands out log-probabilities of the large model", async () => {
    const [target, draft] = [await tinyModel({}, { seed: 3 }), await tinyModel({}, { seed: 4 })];
    const wanted: number[][] = [];
    for await (const { logprobs } of generateSteps(target, prompt, { maxTokens: 8, logprobs: true })) {
      wanted.push([...(logprobs!.toArray() as Float32Array)]);
      logprobs!.dispose();
    }
    let n = 0;
    for await (const { logprobs } of speculativeSteps(target, draft, prompt, { maxTokens: 8, logprobs: true })) {
      const got = logprobs!.toArray() as Float32Array;
      expect(Math.max(...wanted[n++]!.map((value, i) => Math.abs(value - got[i]!)))).toBeLessThan(1e-4);
      logprobs!.dispose();
    }
    expect(n).toBe(8);
    for (const one of [target, draft]) one.dispose();
  });

  test("leaves caches from which plain decoding goes on, wherever it was stopped", async () => {
    const [target, draft] = [await tinyModel({}, { seed: 3 }), await tinyModel({}, { seed: 4 })];
    const expected = await plainly(target, { maxTokens: 30 });
    for (const stopAfter of [1, 2, 3, 7]) {
      const cache = target.makeCache();
      const tokens: number[] = [];
      for await (const { token } of speculativeSteps(target, draft, prompt, { maxTokens: 20, cache })) {
        tokens.push(token);
        if (tokens.length === stopAfter) break;
      }
      expect(tokens).toEqual(expected.slice(0, stopAfter));
      const read = cache[0]!.size;
      const all = [...prompt, ...expected];
      const rest: number[] = [];
      const unread = all.slice(read, prompt.length + stopAfter + 1);
      for await (const { token } of generateSteps(target, unread, { maxTokens: 5, cache })) rest.push(token);
      expect(rest).toEqual(expected.slice(stopAfter + 1, stopAfter + 6));
      for (const layer of cache) layer.dispose();
    }
    for (const one of [target, draft]) one.dispose();
  });

  test("refuses caches that cannot be taken back", async () => {
    const [target, draft] = [await tinyModel({}, { seed: 3 }), await tinyModel({}, { seed: 3 })];
    const cache = target.makeCache({ maxSize: 8 });
    for await (const _ of generateSteps(target, prompt, { maxTokens: 4, cache })) void _;
    const steps = speculativeSteps(target, draft, prompt, { cache });
    expect(steps.next()).rejects.toThrow("needs a KV cache that can be taken back");
    await steps.return();
    for (const layer of cache) layer.dispose();
    for (const one of [target, draft]) one.dispose();
  });
});
