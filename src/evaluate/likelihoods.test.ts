/** Likelihoods by shared prefixes and batches are those of each sequence by itself, whatever a model remembers. */
import { describe, expect, test } from "bun:test";
import { tinyHybrid, tinyMamba, tinyModel, tinyVocabulary } from "../../test/tiny-model";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { type ContextGroup, scoreContinuations, scoreTexts } from "./likelihoods";
import type { Likelihood } from "./tasks/request";

const tokens = (seed: number, count: number) =>
  Array.from({ length: count }, (_, i) => (seed * 31 + i * i * 7 + 5) % tinyVocabulary);

const shared = tokens(1, 20);
const groups: ContextGroup[] = [
  [
    [...shared, ...tokens(2, 5)],
    [1, 3, 7, 2],
  ],
  [
    [...shared, ...tokens(3, 9)],
    [4, 4, 1],
  ],
  [tokens(4, 1), [6]],
  [
    [...shared, ...tokens(2, 5), ...tokens(5, 2)],
    [2, 0, 9],
  ],
  [shared, [12, 1]],
  [
    [...shared, 90],
    [1, 1, 1, 1],
  ],
  [
    [...shared, 90, 3, 4],
    [1, 1],
  ],
  [
    [...shared, 91, ...tokens(6, 6)],
    [1, 1, 1],
  ],
  [[...shared, 91, ...tokens(6, 6), 5], [1]],
  [[91], [1, 1]],
  [tokens(7, 4), [1]],
].map(([context, lengths], g) => ({
  context: context as number[],
  continuations: (lengths as number[]).map((length, i) => ({ index: g * 10 + i, tokens: tokens(g * 7 + i, length) })),
}));

/** One forward pass over the whole, without a cache. */
function alone(model: LanguageModel, sequence: readonly number[], from: number): Likelihood {
  return mx.scope(() => {
    const input = mx.array(sequence.slice(0, -1), "uint32", [1, sequence.length - 1]);
    const logits = model.forward(input).astype("float32").at(0);
    const all = logits.subtract(logits.logsumexp({ axis: -1, keepdims: true }));
    const best = mx.argmax(logits, { axis: -1 }).toList() as number[];
    let [sum, isGreedy] = [0, true];
    for (let i = from; i < sequence.length; i++) {
      sum += all.at(i - 1, sequence[i]!).item();
      isGreedy &&= best[i - 1] === sequence[i];
    }
    return [sum, isGreedy];
  });
}

const models: [name: string, overrides: object][] = [
  ["Llama", {}],
  ["a window that is full", { model_type: "gemma3_text", sliding_window: 16, head_dim: 8, sliding_window_pattern: 2 }],
  ["Mamba 2", tinyMamba],
  ["Qwen 3.5", tinyHybrid],
];

describe.each(models)("%s", (_, overrides) => {
  test.each([1, 3, 8])("continuations, %d at a time", async (batchSize) => {
    const model = await tinyModel(overrides);
    const before = mx.liveHandles();
    const found = new Map<number, Likelihood>();
    const onDone = (index: number, answer: Likelihood) => found.set(index, answer);
    expect(await scoreContinuations(model, groups, { batchSize, onDone })).toBe(true);
    for (const { context, continuations } of groups) {
      for (const { index, tokens: own } of continuations) {
        const [score, isGreedy] = own.length === 0 ? [0, true] : alone(model, [...context, ...own], context.length);
        expect(found.get(index)![0]).toBeCloseTo(score, 3);
        expect(found.get(index)![1]).toBe(isGreedy);
      }
    }
    expect(found.size).toBe(26);
    expect(mx.liveHandles()).toBe(before);
    model.dispose();
  });

  test.each([1, 3])("whole texts, %d at a time", async (batchSize) => {
    const model = await tinyModel(overrides);
    const texts = [tokens(1, 30), tokens(2, 7), tokens(3, 1), [], tokens(4, 19)];
    const found = new Map<number, Likelihood>();
    await scoreTexts(model, texts, { batchSize, onDone: (index, answer) => found.set(index, answer) });
    for (const [i, text] of texts.entries()) {
      expect(found.get(i)![0]).toBeCloseTo(text.length < 2 ? 0 : alone(model, text, 1)[0], 3);
    }
    model.dispose();
  });
});
