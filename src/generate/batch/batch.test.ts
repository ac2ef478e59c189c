/** Sequences in a batch get the tokens that they get alone. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { tinyHybrid, tinyMamba, tinyModel } from "../../../test/tiny-model";
import * as mx from "../../mlx";
import type { Cache, LanguageModel } from "../../models";
import { greedy, type LogitsProcessor, makeLogitsProcessors, makeSampler } from "../../sample";
import { generateSteps, type StepOptions } from "../step";
import { type BatchEvent, BatchGenerator, type BatchRequest, batchGenerate } from ".";
import { evenChunk } from "./sequence";

const sliding = ["sliding_attention", "full_attention", "sliding_attention"];

const models: [name: string, overrides: object][] = [
  ["full attention", {}],
  ["sliding windows", { num_hidden_layers: 3, sliding_window: 5, layer_types: sliding }],
  [
    "norms over heads",
    { model_type: "qwen3", head_dim: 8, tie_word_embeddings: true, rope_theta: 1e4, max_position_embeddings: 512 },
  ],
  ["recurrent state", tinyMamba],
  ["recurrent state and full attention", tinyHybrid],
];

/** A prompt of so many tokens, another one for each seed. */
const prompt = (length: number, seed = 0) => Array.from({ length }, (_, i) => (i * i * 7 + seed * 31 + i + 5) % 97);

async function alone(model: LanguageModel, tokens: readonly number[], options: StepOptions): Promise<number[]> {
  const answer: number[] = [];
  for await (const { token } of generateSteps(model, tokens, options)) answer.push(token);
  return answer;
}

/** Runs to the end; what each id got. */
function finish(generator: BatchGenerator, into = new Map<number, number[]>()): Map<number, number[]> {
  while (generator.size > 0) collect(generator.step(), into);
  return into;
}

function collect(events: readonly BatchEvent[], into: Map<number, number[]>): void {
  for (const event of events) {
    if (event.type !== "token") continue;
    event.logprobs?.dispose();
    into.set(event.id, [...(into.get(event.id) ?? []), event.token]);
  }
}

describe.each(models)("%s", (_, overrides) => {
  test("eight unequal prompts, in one chunk and in several", async () => {
    const model = await tinyModel(overrides);
    const lengths = [1, 2, 5, 6, 11, 3, 17, 30];
    const prompts = lengths.map((length, i) => prompt(length, i));
    const expected = [];
    for (const one of prompts) expected.push(await alone(model, one, { maxTokens: 20 }));
    const before = mx.liveHandles();
    for (const prefillStepSize of [2048, 7, 1]) {
      const { tokens } = await batchGenerate(model, prompts, { maxTokens: 20, prefillStepSize });
      expect(tokens).toEqual(expected);
    }
    const few = await batchGenerate(model, prompts, { maxTokens: 20, completionBatchSize: 3, prefillBatchSize: 2 });
    expect(few.tokens).toEqual(expected);
    expect(mx.liveHandles()).toBe(before);
    model.dispose();
  });

  test("random joins and leaves change no other's tokens", async () => {
    const model = await tinyModel(overrides);
    const lengths = Array.from({ length: 24 }, (_, i) => i + 1);
    const expected: number[][] = [];
    for (const length of lengths) expected.push(await alone(model, prompt(length), { maxTokens: 12 }));
    const action = fc.oneof(
      fc.record({ add: fc.integer({ min: 1, max: 24 }), maxTokens: fc.integer({ min: 1, max: 12 }) }),
      fc.record({ steps: fc.integer({ min: 1, max: 4 }) }),
      fc.record({ remove: fc.nat(5) }),
    );
    fc.assert(
      fc.property(fc.array(action, { minLength: 4, maxLength: 20 }), (actions) => {
        const before = mx.liveHandles();
        const generator = new BatchGenerator(model, {
          prefillStepSize: 6,
          completionBatchSize: 4,
          prefillBatchSize: 2,
        });
        const wanted = new Map<number, { length: number; maxTokens: number }>();
        const got = new Map<number, number[]>();
        for (const one of actions) {
          if ("add" in one) {
            const id = generator.add({ prompt: prompt(one.add), maxTokens: one.maxTokens });
            wanted.set(id, { length: one.add, maxTokens: one.maxTokens });
          } else if ("steps" in one) {
            for (let n = 0; n < one.steps; n++) collect(generator.step(), got);
          } else {
            const ids = [...wanted.keys()];
            const id = ids[one.remove % Math.max(ids.length, 1)];
            if (id === undefined) continue;
            generator.remove([id]);
            wanted.set(id, { ...wanted.get(id)!, maxTokens: got.get(id)?.length ?? 0 });
          }
        }
        finish(generator, got);
        generator.dispose();
        for (const [id, { length, maxTokens }] of wanted) {
          expect(got.get(id) ?? []).toEqual(expected[length - 1]!.slice(0, maxTokens));
        }
        expect(mx.liveHandles()).toBe(before);
      }),
      { seed: 4, numRuns: 12 },
    );
    model.dispose();
  });
});

describe("a batch generator", () => {
  const [, overrides] = models[0]!;

  test("each sequence has its own sampler, processors, stops and log-probabilities", async () => {
    const model = await tinyModel(overrides);
    const seen: number[][] = [];
    const record: LogitsProcessor = (tokens, logits) => {
      seen.push([...(tokens.toArray() as Uint32Array)]);
      return logits;
    };
    const penalized = makeLogitsProcessors({ repetitionPenalty: 1.5, frequencyPenalty: 0.4 });
    const plain = await alone(model, prompt(4), { maxTokens: 10 });
    const other = await alone(model, prompt(9, 1), { maxTokens: 10, logitsProcessors: penalized });
    expect(other).not.toEqual(await alone(model, prompt(9, 1), { maxTokens: 10 }));

    const before = mx.liveHandles();
    const pair = plain.slice(3, 5);
    const stopped = plain.findIndex((token, i) => i > 0 && plain[i - 1] === pair[0] && token === pair[1]) + 1;
    const generator = new BatchGenerator(model);
    const requests: BatchRequest[] = [
      { prompt: prompt(4), maxTokens: 10, logitsProcessors: [record] },
      { prompt: prompt(9, 1), maxTokens: 10, logitsProcessors: penalized, sampler: (x) => greedy(x) },
      { prompt: prompt(4), maxTokens: 10, stop: [[96, 95], pair] },
      { prompt: prompt(4), maxTokens: 3, logprobs: true },
    ];
    const ids = requests.map((request) => generator.add(request));
    const reasons = new Map<number, string>();
    const got = new Map<number, number[]>();
    const likelihoods: number[] = [];
    while (generator.size > 0) {
      const events = generator.step();
      for (const event of events) {
        if (event.type !== "token") continue;
        if (event.finishReason) reasons.set(event.id, event.finishReason);
        expect(event.logprobs !== null).toBe(event.id === ids[3]);
        if (event.logprobs) mx.scope(() => likelihoods.push(event.logprobs!.at(event.token).item()));
      }
      collect(events, got);
    }
    generator.dispose();
    expect(ids.map((id) => got.get(id))).toEqual([plain, other, plain.slice(0, stopped), plain.slice(0, 3)]);
    expect(ids.map((id) => reasons.get(id))).toEqual(["length", "length", "stop", "length"]);
    expect(seen[0]).toEqual(prompt(4));
    expect(seen[3]).toEqual([...prompt(4), ...plain.slice(0, 3)]);
    const steps = generateSteps(model, prompt(4), { maxTokens: 3, logprobs: true });
    for await (const { token, logprobs } of steps) {
      mx.scope(() => expect(likelihoods.shift()!).toBeCloseTo(logprobs!.at(token).item(), 4));
      logprobs!.dispose();
    }
    expect(mx.liveHandles()).toBe(before);
    model.dispose();
  });

  test("equal sampled sequences are drawn together: one seed, the same tokens again", async () => {
    const model = await tinyModel(overrides);
    const sampler = makeSampler({ temp: 0.9, topP: 0.95 });
    const run = async () => {
      mx.random.seed(7);
      return (await batchGenerate(model, [prompt(3), prompt(5), prompt(3)], { maxTokens: 8, sampler })).tokens;
    };
    const first = await run();
    expect(await run()).toEqual(first);
    expect(first[0]).not.toEqual(first[2]);
    model.dispose();
  });

  test("a cache goes in, and comes out at the end: the conversation continues as in one run", async () => {
    const model = await tinyModel(overrides);
    const before = mx.liveHandles();
    const whole = [...prompt(6), ...(await alone(model, prompt(6), { maxTokens: 5 })), ...prompt(3, 2)];
    const expected = await alone(model, whole, { maxTokens: 6 });

    const generator = new BatchGenerator(model);
    generator.add({ prompt: prompt(6), maxTokens: 5, keepCache: true });
    generator.add({ prompt: prompt(8), maxTokens: 9 });
    let cache: BatchRequest["cache"];
    let cachedTokens: number[] = [];
    while (!cache) {
      for (const event of generator.step()) {
        if (event.type === "token" && event.cache) [cache, cachedTokens] = [event.cache, event.tokens!];
      }
    }
    expect(cachedTokens).toEqual(whole.slice(0, 11));
    const id = generator.add({ prompt: whole.slice(11), maxTokens: 6, cache, cachedTokens });
    expect(finish(generator).get(id)).toEqual(expected);
    for (const layer of cache as Cache[]) layer.dispose();
    generator.dispose();
    expect(mx.liveHandles()).toBe(before);
    model.dispose();
  });

  test("prefill halts at boundaries, where the cache can be taken", async () => {
    const model = await tinyModel(overrides);
    const before = mx.liveHandles();
    const generator = new BatchGenerator(model, { prefillStepSize: 8 });
    const id = generator.add({ prompt: prompt(24), maxTokens: 2, boundaries: [5, 13, 14] });
    const places: number[] = [];
    while (generator.size > 0) {
      for (const event of generator.step()) if (event.type === "prefill") places.push(event.done);
      const taken = places.at(-1) === 13 ? generator.extract(id) : null;
      if (!taken) continue;
      expect(taken.tokens).toEqual(prompt(24).slice(0, 13));
      expect(await alone(model, prompt(24).slice(13), { maxTokens: 2, cache: taken.cache })).toEqual(
        await alone(model, prompt(24), { maxTokens: 2 }),
      );
      for (const layer of taken.cache) layer.dispose();
    }
    expect(places).toEqual([5, 13, 14, 22, 23, 24]);
    expect(generator.extract(id)).toBeNull();
    generator.dispose();
    expect(mx.liveHandles()).toBe(before);
    model.dispose();
  });

  test("starts no further sequence while the caches are too large", async () => {
    const model = await tinyModel(overrides);
    const generator = new BatchGenerator(model, { maxCacheBytes: 1 });
    for (let i = 0; i < 3; i++) generator.add({ prompt: prompt(5), maxTokens: 4 });
    const together: number[] = [];
    const got = new Map<number, number[]>();
    while (generator.size > 0) {
      const events = generator.step();
      together.push(events.filter(({ type }) => type === "token").length);
      collect(events, got);
    }
    expect(Math.max(...together)).toBe(3);
    expect([...got.values()].map((tokens) => tokens.length)).toEqual([4, 4, 4]);
    generator.dispose();
    model.dispose();
  });

  test.each([
    [{ prompt: [] }, "the prompt is empty"],
    [{ prompt: [97] }, "token 97"],
    [{ prompt: [1], maxTokens: 0 }, "max-tokens must be 1 or more"],
  ])("%p is refused", async (request, problem) => {
    const model = await tinyModel(overrides);
    const generator = new BatchGenerator(model);
    expect(() => generator.add(request)).toThrow(problem);
    expect(generator.size).toBe(0);
    generator.dispose();
    model.dispose();
  });

  test("disposed in the middle, it leaves nothing behind", async () => {
    const model = await tinyModel(overrides);
    const before = mx.liveHandles();
    const generator = new BatchGenerator(model, { prefillBatchSize: 1, completionBatchSize: 2 });
    for (let i = 0; i < 5; i++)
      generator.add({ prompt: prompt(5 + i), logitsProcessors: makeLogitsProcessors({ presencePenalty: 1 }) });
    for (let n = 0; n < 5; n++) generator.step();
    generator.dispose();
    expect(mx.liveHandles()).toBe(before);
    model.dispose();
  });
});

describe("chunks of several prompts", () => {
  test.each([
    { lengths: [10, 2048], most: Infinity, chunk: 10 },
    { lengths: [900, 1000, 1000], most: Infinity, chunk: 1000 },
    { lengths: [3, 3, 3, 200], most: Infinity, chunk: 3 },
    { lengths: [500], most: 64, chunk: 64 },
    { lengths: [500, 500, 500], most: 64, chunk: 21 },
    { lengths: [500, 500, 500], most: 2, chunk: 1 },
  ])("of $lengths, at most $most tokens: $chunk each", ({ lengths, most, chunk }) => {
    expect(evenChunk(lengths, most)).toBe(chunk);
  });

  test("a pace bounds what a step reads, and is told whether others wait for it", async () => {
    const model = await tinyModel();
    const told: boolean[] = [];
    const promptPace = (_: unknown, isAnswering: boolean) => {
      told.push(isAnswering);
      return 4;
    };
    const generator = new BatchGenerator(model, { promptPace });
    generator.add({ prompt: prompt(3), maxTokens: 20 });
    const answers = new Map<number, number[]>();
    collect(generator.step(), answers);
    const long = generator.add({ prompt: prompt(17), maxTokens: 3 });
    const read: number[] = [];
    while (generator.size > 0) {
      const events = generator.step();
      for (const event of events) if (event.type === "prefill" && event.id === long) read.push(event.done);
      collect(events, answers);
    }
    expect(read).toEqual([4, 8, 12, 16, 17]);
    expect(told[0]).toBe(false);
    expect(told.slice(1)).toEqual([true, true, true, true]);
    expect(answers.get(long)).toEqual(await alone(model, prompt(17), { maxTokens: 3 }));
    generator.dispose();
    model.dispose();
  });
});
