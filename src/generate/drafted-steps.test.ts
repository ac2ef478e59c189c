/** Drafts change how often the model runs, and nothing else. */
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { tinyDraftHead, tinyHybrid, tinyMamba, tinyModel } from "../../test/tiny-model";
import { demoFolder } from "../demo/folder";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { QuantizedKVCache } from "../nn";
import { makeLogitsProcessors, makeSampler } from "../sample";
import { loadTokenizer } from "../text/tokenizer";
import { type Answering, answer, type End } from "./answer";
import type { Drafter } from "./draft/drafter";
import { NgramDrafter } from "./draft/ngram-drafter";
import { DraftStepper, type Drafts } from "./draft-stepper";
import { LoneStepper } from "./lone-stepper";
import { PrefixStore } from "./prefix-store";
import { draftedSteps, type SpeculativeOptions } from "./speculative";
import { generateSteps, type StepOptions } from "./step";

/** Its end stands at its begin too. */
const prompt = [3, 14, 15, 92, 65, 35, 89, 79, 32, 38, 46, 3, 14, 15];

const windows = { layer_types: ["sliding_attention", "full_attention"], sliding_window: 16 };

const plain = {};

const kinds: [string, object][] = [
  ["full attention", plain],
  ["sliding windows", windows],
  ["recurrent state", tinyMamba],
  ["recurrent state and full attention", tinyHybrid],
];

async function plainly(model: LanguageModel, options: StepOptions): Promise<number[]> {
  const tokens: number[] = [];
  for await (const { token } of generateSteps(model, prompt, options)) tokens.push(token);
  return tokens;
}

async function drafting(model: LanguageModel, drafter: Drafter, options: SpeculativeOptions) {
  const tokens: number[] = [];
  const counts = { proposed: 0, accepted: 0, passes: 0 };
  const onDrafts = (proposed: number, accepted: number) => {
    counts.proposed += proposed;
    counts.accepted += accepted;
    counts.passes += 1;
  };
  for await (const { token } of draftedSteps(model, drafter, prompt, { ...options, onDrafts })) tokens.push(token);
  return { tokens, ...counts };
}

/** Always the same drafts. */
const always = (...tokens: number[]): Drafter => ({
  name: "a test",
  flag: "--test",
  propose: (_, count) => tokens.slice(0, count),
  settle() {},
  dispose() {},
});

// The generator's key lives on from the first number that is drawn.
beforeAll(() => mx.random.seed(0));

let before: number;
beforeEach(() => {
  before = mx.liveHandles();
});
afterEach(() => expect(mx.liveHandles()).toBe(before));

describe("with drafts from the text", () => {
  test.each(kinds)("greedy tokens are the same with %s", async (_, overrides) => {
    const model = await tinyModel(overrides);
    const expected = await plainly(model, { maxTokens: 80 });
    const drafted = await drafting(model, new NgramDrafter(), { maxTokens: 80, numDraftTokens: 8 });
    expect(drafted.tokens).toEqual(expected);
    // Attention of this size repeats itself soon.
    if (overrides === plain) expect(drafted.accepted).toBeGreaterThan(40);
    // A pass gives one token of its own, but perhaps the last.
    expect([0, 1]).toContain(drafted.passes - (80 - drafted.accepted));
    model.dispose();
  });

  test.each(kinds)("greedy tokens are the same with %s and a limit on the cache", async (_, overrides) => {
    const model = await tinyModel(overrides);
    for (const maxKvSize of [2, 8, 20, 30]) {
      const options = { maxTokens: 60, maxKvSize };
      const expected = await plainly(model, options);
      for (const drafter of [new NgramDrafter(), always(...expected.slice(8, 12))]) {
        const drafted = await drafting(model, drafter, { ...options, numDraftTokens: 4 });
        expect(drafted.tokens).toEqual(expected);
        // Until the first tokens would be cut off from the latest.
        if (maxKvSize === 30) expect(drafted.proposed).toBeGreaterThan(0);
      }
    }
    model.dispose();
  });

  test("logits processors see the whole text", async () => {
    const model = await tinyModel();
    const logitsProcessors = () => makeLogitsProcessors({ repetitionPenalty: 1.3, repetitionContextSize: 20 });
    const expected = await plainly(model, { maxTokens: 60, logitsProcessors: logitsProcessors() });
    const options = { maxTokens: 60, logitsProcessors: logitsProcessors(), numDraftTokens: 4 };
    expect((await drafting(model, new NgramDrafter(), options)).tokens).toEqual(expected);
    model.dispose();
  });

  test.each(kinds)("a cache is left that goes on with %s, wherever it was stopped", async (_, overrides) => {
    const model = await tinyModel(overrides);
    const expected = await plainly(model, { maxTokens: 50 });
    for (const stopAfter of [1, 5, 23, 36]) {
      const drafter = always(...expected.slice(8, 12));
      let kept: { cache: ReturnType<LanguageModel["makeCache"]>; tokens: readonly number[] } | undefined;
      let count = 0;
      const options = {
        maxTokens: 40,
        numDraftTokens: 4,
        onEnd: (cache: ReturnType<LanguageModel["makeCache"]>, tokens: readonly number[]) => {
          kept = { cache, tokens };
        },
      };
      for await (const _ of draftedSteps(model, drafter, prompt, options)) if (++count === stopAfter) break;
      const all = [...prompt, ...expected];
      const { cache, tokens } = kept!;
      expect(tokens).toEqual(all.slice(0, tokens.length));
      expect(tokens.length).toBeGreaterThan(prompt.length + stopAfter - 10);
      const rest: number[] = [];
      const unread = all.slice(tokens.length, prompt.length + stopAfter + 1);
      for await (const { token } of generateSteps(model, unread, { maxTokens: 5, cache })) rest.push(token);
      expect(rest).toEqual(expected.slice(stopAfter + 1, stopAfter + 6));
      for (const layer of cache) layer.dispose();
    }
    model.dispose();
  });
});

test("a cache that is packed while drafts are checked forgets the wrong ones", async () => {
  const model = await tinyModel({ head_dim: 32 });
  for (const start of [15, 17, 20]) {
    let kept: ReturnType<LanguageModel["makeCache"]> = [];
    let read = 0;
    const options: SpeculativeOptions = {
      maxTokens: 20,
      numDraftTokens: 3,
      kvQuantization: { bits: 8, groupSize: 32, start },
      onEnd(cache, tokens) {
        kept = cache;
        read = tokens.length;
      },
    };
    await drafting(model, always(1, 2, 3), options);
    expect(kept.map(({ size }) => size)).toEqual([read, read]);
    expect(kept.every((layer) => layer instanceof QuantizedKVCache)).toBe(true);
    for (const layer of kept) layer.dispose();
  }
  model.dispose();
});

test.each<[string, (model: LanguageModel) => Promise<Drafts>]>([
  ["the text", async () => ({ from: "ngram", tokens: 4 })],
  ["draft layers", async (model) => ({ head: await tinyDraftHead(model), tokens: 2 })],
  ["a model", async (model) => ({ model, tokens: 2 })],
])("answers with drafts from %s go on from a store, and say how the drafts did", async (_, draftsFor) => {
  const model = await tinyModel(_ === "a model" ? {} : tinyHybrid);
  const drafts = await draftsFor(model);
  const tokenizer = await loadTokenizer(demoFolder());
  const prefixes = new PrefixStore(() => model.makeCache());
  const asked = async (by: Answering, tokens: number[]) => {
    let end: End | undefined;
    for await (const part of answer({ prompt: tokens, maxTokens: 20, stopTokens: new Set() }, by)) {
      if (part.type === "end") end = part;
    }
    return end!;
  };
  const alone = { stepper: new LoneStepper(model), tokenizer };
  const drafting = { stepper: new DraftStepper(model, drafts), tokenizer, prefixes };
  const conversation = [...prompt];
  for (const turn of [0, 1, 2]) {
    const expected = await asked(alone, conversation);
    const got = await asked(drafting, conversation);
    expect(got.generated).toEqual(expected.generated);
    expect(expected.drafts).toBeUndefined();
    const { proposed, accepted, acceptance, passes } = got.drafts!;
    expect(acceptance).toBeCloseTo(accepted / Math.max(proposed, 1));
    expect([0, 1]).toContain(passes - (20 - accepted));
    if (turn > 0) expect(got.cached_tokens).toBeGreaterThan(prompt.length);
    conversation.push(...got.generated, 5, 6, 7);
  }
  prefixes.clear();
  if ("head" in drafts) drafts.head.dispose();
  model.dispose();
});

test("sampled tokens have the model's own probabilities, whatever is drafted", async () => {
  const model = await tinyModel();
  const after = (tokens: number[]) =>
    mx.scope(
      () => mx.softmax(model.forward(mx.array(tokens, "uint32", [1, tokens.length])).at(0, -1)).toList() as number[],
    );
  const first = after(prompt);
  const likely = first.indexOf(Math.max(...first));
  const second = after([...prompt, likely]);
  const wanted = second.indexOf(Math.max(...second));
  const runs = 500;
  const seen = { first: 0, both: 0 };
  mx.random.seed(7);
  const sampler = makeSampler({ temp: 1 });
  for (let i = 0; i < runs; i++) {
    const { tokens } = await drafting(model, always(likely, wanted), { maxTokens: 2, sampler, numDraftTokens: 2 });
    if (tokens[0] === likely) seen.first += 1;
    if (tokens[0] === likely && tokens[1] === wanted) seen.both += 1;
  }
  const isNear = (count: number, p: number) =>
    expect(Math.abs(count - runs * p)).toBeLessThan(4 * Math.sqrt(runs * p * (1 - p)));
  isNear(seen.first, first[likely]!);
  isNear(seen.both, first[likely]! * second[wanted]!);
  model.dispose();
}, 30_000);
