/** Kept prompts: what is found, what is forgotten, and that a hit changes no token of an answer. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { tinyHybrid, tinyMamba, tinyModel } from "../../../test/tiny-model";
import { BatchStepper } from "../../generate/batch";
import * as mx from "../../mlx";
import type { LanguageModel } from "../../models";
import { RadixPrefixes } from "./radix-prefixes";
import { RadixTree } from "./radix-tree";

let before: number;
beforeEach(() => {
  mx.random.seed(0);
  before = mx.liveHandles();
});
afterEach(() => expect(mx.liveHandles()).toBe(before));

const sequence = fc.array(fc.nat(2), { maxLength: 6 });

test("the tree finds what a list of all sequences would", () => {
  const action = fc.oneof(fc.record({ set: sequence }), fc.record({ remove: sequence }), fc.record({ find: sequence }));
  fc.assert(
    fc.property(fc.array(action, { maxLength: 30 }), (actions) => {
      const tree = new RadixTree<string>();
      const all = new Map<string, number[]>();
      const begins = (long: number[], short: number[]) =>
        short.every((token, i) => token === long[i]) && short.length <= long.length;
      for (const one of actions) {
        if ("set" in one) {
          const key = one.set.join();
          expect(tree.set(one.set, key)).toBe(all.has(key) ? key : null);
          all.set(key, one.set);
        } else if ("remove" in one) {
          const key = one.remove.join();
          expect(tree.delete(one.remove)).toBe(all.has(key) ? key : null);
          all.delete(key);
        } else {
          const shorter = [...all.values()]
            .filter((known) => begins(one.find, known))
            .sort((a, b) => a.length - b.length);
          expect(tree.prefixesOf(one.find)).toEqual(
            shorter.map((known) => ({ value: known.join(), length: known.length })),
          );
          const { shared, longer } = tree.beyond(one.find);
          const common = (known: number[]) => one.find.findIndex((token, i) => token !== known[i]);
          const lengths = [...all.values()].map((known) => (common(known) < 0 ? one.find.length : common(known)));
          expect(shared).toBe(Math.max(0, ...lengths));
          const start = one.find.slice(0, shared);
          const expected = [...all.values()].filter((known) => known.length > shared && begins(known, start));
          expect(longer.map(({ value }) => value).sort()).toEqual(expected.map((known) => known.join()).sort());
        }
      }
    }),
    { numRuns: 300 },
  );
});

const sliding = {
  num_hidden_layers: 3,
  sliding_window: 8,
  layer_types: ["sliding_attention", "full_attention", "sliding_attention"],
};
const kinds: [name: string, overrides: object][] = [
  ["full attention", {}],
  ["sliding windows", sliding],
  ["recurrent state", tinyMamba],
  ["recurrent state and full attention", tinyHybrid],
];

const tokens = (length: number, seed: number) => Array.from({ length }, (_, i) => (i * i * 7 + seed * 31 + i + 5) % 97);

/** An answer of so many tokens, and how many of the prompt's needed no reading. */
async function answer(
  stepper: BatchStepper,
  prefixes: RadixPrefixes,
  prompt: readonly number[],
  { count = 10, boundaries = [] as number[] } = {},
): Promise<{ said: number[]; cached: number }> {
  const loan = prefixes.take(prompt);
  const cached = loan.count;
  const said: number[] = [];
  try {
    for await (const { token } of stepper.steps({
      prompt: prompt.slice(cached),
      maxTokens: count,
      cache: loan.layers,
      cachedTokens: prompt.slice(0, cached),
      boundaries: boundaries.flatMap((place) => (place > cached ? place - cached : [])),
      onBoundary: (layers, held) => prefixes.put(layers, held),
      onEnd: (layers, held) => loan.settle(held, layers),
    })) {
      said.push(token);
    }
  } finally {
    loan.close();
  }
  return { said, cached };
}

const kept = (model: LanguageModel, options: { maxEntries?: number; maxBytes?: number } = {}) =>
  new RadixPrefixes(() => model.makeCache(), { maxEntries: 100, maxBytes: 1e12, ...options });

describe.each(kinds)("%s", (name, overrides) => {
  const forgets = name !== "full attention";

  test("a conversation goes on from what was read, with the tokens that it would get cold", async () => {
    const model = await tinyModel(overrides);
    const stepper = new BatchStepper(model);
    const [warm, cold] = [kept(model), kept(model, { maxEntries: 0 })];
    for (let chat = 0; chat < 4; chat++) {
      // All begin with the same instructions.
      let prompt = [...tokens(20, 0), ...tokens(7, chat + 1)];
      for (let turn = 0; turn < 3; turn++) {
        // A template that writes the end of a prompt otherwise once the answer is there.
        const open = [...prompt, 3, 4, 5];
        const boundaries = [20, prompt.length];
        const [hit, miss] = await Promise.all([
          answer(stepper, warm, open, { boundaries }),
          answer(stepper, cold, open),
        ]);
        expect(hit.said).toEqual(miss.said);
        expect(miss.cached).toBe(0);
        if (turn > 0) expect(hit.cached).toBeGreaterThanOrEqual(forgets ? prompt.length - 19 : prompt.length - 18);
        else if (chat > 0) expect(hit.cached).toBeGreaterThanOrEqual(20);
        prompt = [...prompt, ...hit.said, ...tokens(8, 50 + turn)];
      }
    }
    expect(warm.size).toBeGreaterThan(0);
    warm.clear();
    cold.clear();
    stepper.dispose();
    model.dispose();
  });

  test("several at once go on from one and the same beginning", async () => {
    const model = await tinyModel(overrides);
    const stepper = new BatchStepper(model);
    const [warm, cold] = [kept(model), kept(model, { maxEntries: 0 })];
    const start = tokens(24, 9);
    await answer(stepper, warm, [...start, 1], { boundaries: [24], count: 3 });
    const prompts = Array.from({ length: 5 }, (_, i) => [...start, ...tokens(3 + i, i)]);
    const hits = await Promise.all(prompts.map((prompt) => answer(stepper, warm, prompt)));
    for (const { cached } of hits) expect(cached).toBeGreaterThanOrEqual(24);
    for (const [i, prompt] of prompts.entries())
      expect((await answer(stepper, cold, prompt)).said).toEqual(hits[i]!.said);
    warm.clear();
    stepper.dispose();
    model.dispose();
  });
});

describe("limits", () => {
  test("bytes are those of the arrays, and the least recently used goes first", async () => {
    const model = await tinyModel();
    const stepper = new BatchStepper(model);
    const changes: number[] = [];
    const all = new RadixPrefixes(() => model.makeCache(), {
      maxEntries: 100,
      maxBytes: 1e12,
      onChange: (bytes) => changes.push(bytes),
    });
    await answer(stepper, all, tokens(30, 1));
    const one = all.nbytes;
    expect(one).toBeGreaterThan(0);
    expect(one).toBe([...all.entries].flatMap(({ layers }) => layers).reduce((sum, { nbytes }) => sum + nbytes, 0));
    await answer(stepper, all, tokens(30, 2));
    await answer(stepper, all, tokens(30, 3));
    // The first is used again.
    all.take(tokens(30, 1)).close();
    all.release(1);
    expect(all.size).toBe(2);
    expect(all.take(tokens(30, 2)).count).toBe(0);
    const again = all.take(tokens(30, 1));
    expect(again.count).toBe(29);
    again.close();
    all.release(1e12);
    expect([all.size, all.nbytes]).toEqual([0, 0]);
    expect(changes.at(-1)).toBe(0);
    stepper.dispose();
    model.dispose();
  });

  test("no more entries and bytes than allowed", async () => {
    const model = await tinyModel();
    const stepper = new BatchStepper(model);
    const few = kept(model, { maxEntries: 2 });
    const none = kept(model, { maxBytes: 10 });
    for (let seed = 0; seed < 4; seed++) {
      await answer(stepper, few, tokens(20, seed));
      await answer(stepper, none, tokens(20, seed));
    }
    expect([few.size, none.size]).toEqual([2, 0]);
    few.clear();
    stepper.dispose();
    model.dispose();
  });

  test("what another can be cut back to takes no place", async () => {
    const model = await tinyModel();
    const stepper = new BatchStepper(model);
    const all = kept(model);
    const prompt = tokens(20, 1);
    const { said } = await answer(stepper, all, prompt);
    await answer(stepper, all, [...prompt, ...said, 1, 2]);
    expect(all.size).toBe(1);
    await answer(stepper, all, prompt.slice(0, 12), { count: 1 });
    expect(all.size).toBeLessThanOrEqual(2);
    all.clear();
    stepper.dispose();
    model.dispose();
  });
});
