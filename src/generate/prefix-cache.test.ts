import { afterAll, describe, expect, test } from "bun:test";
import { tinyModel } from "../../test/tiny-model";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { PrefixCache } from "./prefix-cache";
import { generateSteps } from "./step";

const full = await tinyModel();
const sliding = await tinyModel({ layer_types: ["sliding_attention", "full_attention"], sliding_window: 8 });
afterAll(() => {
  full.dispose();
  sliding.dispose();
});

const numbers = (count: number, step: number) => Array.from({ length: count }, (_, i) => (i * step + 5) % 97);

interface Turn {
  answer: number[];
  /** Prompt tokens that were not fed. */
  reused: number;
}

/** Answers a prompt and settles; with `stopAt`, as if interrupted after so many tokens. */
async function turn(model: LanguageModel, cache: PrefixCache, prompt: number[], stopAt?: number): Promise<Turn> {
  const reused = cache.reuse(prompt);
  const stop = new AbortController();
  const answer: number[] = [];
  const options = { maxTokens: 9, cache: cache.layers, signal: stop.signal };
  for await (const { token } of generateSteps(model, prompt.slice(reused), options)) {
    answer.push(token);
    if (answer.length === stopAt) stop.abort();
  }
  cache.settle([...prompt, ...answer], { interrupted: stop.signal.aborted });
  return { answer, reused };
}

async function freshly(model: LanguageModel, prompt: number[], maxTokens = 9): Promise<number[]> {
  const answer: number[] = [];
  for await (const { token } of generateSteps(model, prompt, { maxTokens })) answer.push(token);
  return answer;
}

const conversationOf = (model: LanguageModel) => new PrefixCache(() => model.makeCache());

describe("answers are those of a fresh cache", () => {
  for (const [name, model] of [
    ["full attention", full],
    ["a sliding window", sliding],
  ] as const) {
    test(`${name}: prompts that go on, part ways, get shorter, or come again`, async () => {
      const cache = conversationOf(model);
      const first = numbers(11, 31);
      const { answer } = await turn(model, cache, first);
      const prompts = [
        [...first, ...answer, 1, 2, 3],
        [...first, ...answer.slice(0, 4), 7, 8],
        first,
        first,
        first.slice(0, 5),
        numbers(300, 17),
        [...numbers(290, 17), 4, 4, 4],
        [96],
      ];
      for (const prompt of prompts) {
        expect((await turn(model, cache, prompt)).answer).toEqual(await freshly(model, prompt));
      }
      cache.clear();
    });

    test(`${name}: after an interruption`, async () => {
      const cache = conversationOf(model);
      let prompt = numbers(6, 29);
      for (const stopAt of [1, 3, 2, 5]) {
        const { answer } = await turn(model, cache, prompt, stopAt);
        expect(answer).toEqual(await freshly(model, prompt, stopAt));
        prompt = [...prompt, ...answer, 11, 12];
      }
      expect((await turn(model, cache, prompt)).answer).toEqual(await freshly(model, prompt));
      cache.clear();
    });
  }
});

describe("what is reused", () => {
  test("all that two prompts share, but never a whole prompt", async () => {
    const cache = conversationOf(full);
    const prompt = numbers(20, 13);
    const { answer, reused } = await turn(full, cache, prompt);
    expect(reused).toBe(0);
    expect((await turn(full, cache, [...prompt, ...answer, 1])).reused).toBe(29);
    expect((await turn(full, cache, [...prompt.slice(0, 12), 0, 1])).reused).toBe(12);
    expect((await turn(full, cache, prompt.slice(0, 12))).reused).toBe(11);
    cache.clear();
    expect((await turn(full, cache, prompt)).reused).toBe(0);
    cache.clear();
  });

  test("a ring that is full goes on, but does not go back", async () => {
    const cache = conversationOf(sliding);
    const prompt = numbers(20, 13);
    const { answer } = await turn(sliding, cache, prompt);
    const longer = [...prompt, ...answer, 1];
    expect((await turn(sliding, cache, longer)).reused).toBe(29);
    expect((await turn(sliding, cache, longer)).reused).toBe(0);
    cache.clear();
  });

  test("nothing of a generation that never settled", async () => {
    const cache = conversationOf(full);
    const prompt = numbers(20, 13);
    await turn(full, cache, prompt);
    cache.reuse(prompt);
    for await (const _ of generateSteps(full, [1, 2], { maxTokens: 2, cache: cache.layers }));
    expect((await turn(full, cache, prompt)).answer).toEqual(await freshly(full, prompt));
    cache.clear();
  });

  test("as much as was fed when the prompt was cut short", async () => {
    await freshly(full, [1, 2]);
    const before = mx.liveHandles();
    const cache = conversationOf(full);
    const prompt = numbers(20, 13);
    cache.reuse(prompt);
    const stop = new AbortController();
    const onPrefill = (done: number) => done >= 8 && stop.abort();
    const options = { cache: cache.layers, signal: stop.signal, prefillStepSize: 4, onPrefill };
    for await (const _ of generateSteps(full, prompt, options)) throw new Error("it should have stopped");
    cache.settle(prompt, { interrupted: true });
    const { answer, reused } = await turn(full, cache, prompt);
    expect(reused).toBe(8);
    expect(answer).toEqual(await freshly(full, prompt));
    cache.clear();
    expect(mx.liveHandles()).toBe(before);
  });
});

test("a long conversation leaves no tensor behind", async () => {
  await freshly(full, [1, 2]);
  const before = mx.liveHandles();
  const cache = conversationOf(full);
  for (let n = 1; n < 40; n++) await turn(full, cache, numbers(n * 3, 7), n % 3 === 0 ? 2 : undefined);
  cache.clear();
  expect(mx.liveHandles()).toBe(before);
});
