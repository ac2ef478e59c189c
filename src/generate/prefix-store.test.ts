import { afterAll, describe, expect, test } from "bun:test";
import { tinyMamba, tinyModel } from "../../test/tiny-model";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { PrefixStore, type PrefixStoreOptions } from "./prefix-store";
import { generateSteps, type StepOptions } from "./step";

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
async function turn(model: LanguageModel, store: PrefixStore, prompt: number[], stopAt?: number): Promise<Turn> {
  const loan = store.take(prompt);
  const stop = new AbortController();
  const answer: number[] = [];
  const options: StepOptions = {
    maxTokens: 9,
    cache: loan.layers,
    cachedTokens: prompt.slice(0, loan.count),
    onEnd: (layers, tokens) => loan.settle(tokens, layers),
    signal: stop.signal,
  };
  for await (const { token } of generateSteps(model, prompt.slice(loan.count), options)) {
    answer.push(token);
    if (answer.length === stopAt) stop.abort();
  }
  return { answer, reused: loan.count };
}

async function freshly(model: LanguageModel, prompt: number[], maxTokens = 9): Promise<number[]> {
  const answer: number[] = [];
  for await (const { token } of generateSteps(model, prompt, { maxTokens })) answer.push(token);
  return answer;
}

const conversationOf = (model: LanguageModel) => new PrefixStore(() => model.makeCache());

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
    const loan = cache.take(prompt);
    for await (const _ of generateSteps(full, [1, 2], { maxTokens: 2, cache: loan.layers }));
    loan.close();
    expect((await turn(full, cache, prompt)).answer).toEqual(await freshly(full, prompt));
    cache.clear();
  });

  test("as much as was fed when the prompt was cut short", async () => {
    await freshly(full, [1, 2]);
    const before = mx.liveHandles();
    const cache = conversationOf(full);
    const prompt = numbers(20, 13);
    const loan = cache.take(prompt);
    const stop = new AbortController();
    const options: StepOptions = {
      cache: loan.layers,
      onEnd: (layers, tokens) => loan.settle(tokens, layers),
      signal: stop.signal,
      prefillStepSize: 4,
      onPrefill: (done) => done >= 8 && stop.abort(),
    };
    for await (const _ of generateSteps(full, prompt, options)) throw new Error("it should have stopped");
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

describe("several conversations", () => {
  const many = (options: PrefixStoreOptions, model = full) => new PrefixStore(() => model.makeCache(), options);

  test("each goes on from its own; a beginning that they share is copied", async () => {
    const before = mx.liveHandles();
    const store = many({ maxEntries: 4 });
    const shared = numbers(30, 13);
    const prompts = [1, 2, 3].map((n) => [...shared, n, n + 4]);
    const reused: number[] = [];
    for (const [i, prompt] of prompts.entries()) {
      const { answer, reused: count } = await turn(full, store, prompt);
      expect(answer).toEqual(await freshly(full, prompt));
      prompts[i] = [...prompt, ...answer, 8];
      reused.push(count);
    }
    expect(reused).toEqual([0, 30, 30]);
    expect(store.size).toBe(3);
    for (const prompt of prompts) {
      const { answer, reused: count } = await turn(full, store, prompt);
      expect(answer).toEqual(await freshly(full, prompt));
      expect(count).toBe(prompt.length - 1);
    }
    expect(store.size).toBe(3);
    store.clear();
    expect(mx.liveHandles()).toBe(before);
  });

  test("the one that was not used for the longest time is forgotten", async () => {
    const store = many({ maxEntries: 2 });
    const prompts = [3, 7, 11].map((step) => numbers(12, step).with(0, step));
    const [first, second, third] = prompts as [number[], number[], number[]];
    for (const prompt of [first, second, first, third]) await turn(full, store, prompt);
    expect(store.size).toBe(2);
    expect((await turn(full, store, second)).reused).toBe(0);
    expect((await turn(full, store, third)).reused).toBe(11);
    expect((await turn(full, store, first)).reused).toBe(0);
    store.clear();
  });

  test("bytes are bounded, the newest conversation's too", async () => {
    const probe = many({ maxEntries: 9 });
    await turn(full, probe, numbers(12, 3));
    const one = probe.nbytes;
    probe.clear();
    const store = many({ maxEntries: 9, maxBytes: 2 * one });
    for (const step of [3, 7, 11]) await turn(full, store, numbers(12, step).with(0, step));
    expect([store.size, store.nbytes]).toEqual([2, 2 * one]);
    await turn(full, store, numbers(1500, 7).with(0, 90));
    expect([store.size, store.nbytes]).toEqual([0, 0]);
  });

  test("caches that cannot go back are lent to what goes on from them, and to nothing else", async () => {
    for (const overrides of [tinyMamba, { layer_types: ["sliding_attention", "full_attention"], sliding_window: 8 }]) {
      const model = await tinyModel(overrides);
      const before = mx.liveHandles();
      const store = many({ maxEntries: 4 }, model);
      const prompt = numbers(20, 13);
      const { answer } = await turn(model, store, prompt);
      const longer = [...prompt, ...answer, 1];
      const fork = [...prompt, 96, 95];
      expect(await turn(model, store, fork)).toEqual({ answer: await freshly(model, fork), reused: 0 });
      expect(await turn(model, store, longer)).toEqual({ answer: await freshly(model, longer), reused: 29 });
      expect(store.size).toBe(2);
      store.clear();
      expect(mx.liveHandles()).toBe(before);
      model.dispose();
    }
  });

  test("two that go on from the same at a time: one has it, the other reads anew; both are held", async () => {
    const before = mx.liveHandles();
    const store = many({ maxEntries: 4 });
    const prompt = numbers(20, 13);
    const { answer } = await turn(full, store, prompt);
    const [one, two] = [
      [...prompt, ...answer, 1],
      [...prompt, ...answer, 2],
    ] as [number[], number[]];
    const loan = store.take(one);
    expect(loan.count).toBe(29);
    expect((await turn(full, store, two)).answer).toEqual(await freshly(full, two));
    loan.settle(one.slice(0, 29));
    expect(store.size).toBe(2);
    expect((await turn(full, store, one)).reused).toBe(29);
    store.clear();
    expect(mx.liveHandles()).toBe(before);
  });

  test("what holds another one whole takes its place", async () => {
    const store = many({ maxEntries: 4 });
    const loan = store.take([1, 2, 3]);
    const { answer } = await turn(full, store, [1, 2, 3]);
    loan.settle([]);
    expect(store.size).toBe(1);
    const again = store.take([90, 91]);
    for await (const _ of generateSteps(full, [1, 2, 3, ...answer, 5], { maxTokens: 1, cache: again.layers }));
    again.settle([1, 2, 3, ...answer, 5]);
    expect(store.size).toBe(1);
    expect((await turn(full, store, [1, 2, 3, ...answer, 5, 6])).reused).toBe(13);
    store.clear();
  });
});
