/** Grammars in a batch: forced text is read in chunks, and what is refused is chosen again, for its own row only. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { tinyHybrid, tinyMamba, tinyModel } from "../../../test/tiny-model";
import * as mx from "../../mlx";
import type { LanguageModel } from "../../models";
import type { AnswerFormat } from "../../sample/grammar/formats";
import { loadTokenizer } from "../../text/tokenizer";
import { constrain } from "../constrain";
import { LoneStepper } from "../lone-stepper";
import type { Stepper } from "../stepper";
import { BatchStepper } from ".";
import { commonLength } from "./generation-batch";

const tokenizer = await loadTokenizer(join(import.meta.dir, "../../../test/fixtures/checkpoint"));
const vocab_size = 400;
const prompts = await Promise.all(["Say it:", "And now?", "Go on,", "The end."].map((text) => tokenizer.encode(text)));

const sliding = ["sliding_attention", "full_attention", "sliding_attention"];
const models: [name: string, overrides: object][] = [
  ["full attention", {}],
  ["sliding windows", { num_hidden_layers: 3, sliding_window: 5, layer_types: sliding }],
  ["recurrent state", tinyMamba],
  ["recurrent state and full attention", tinyHybrid],
];

/** A number between texts that have no choice. */
const form: AnswerFormat = { type: "regex", pattern: "<the number is [0-9]{2}, and that is all there is: [a-c]{3}>" };

async function said(stepper: Stepper, prompt: readonly number[], format: AnswerFormat | null): Promise<number[]> {
  const { vocabSize: vocabularySize } = stepper.model;
  const constraint = format && (await constrain(format, { tokenizer, vocabularySize, prompt }));
  const tokens: number[] = [];
  const stopTokens = tokenizer.eosTokenIds;
  for await (const { token } of stepper.steps({ prompt, maxTokens: 60, constraint, stopTokens })) tokens.push(token);
  constraint?.dispose();
  return tokens;
}

const textOf = (tokens: readonly number[]) =>
  tokenizer.decode(tokens.filter((token) => !tokenizer.eosTokenIds.has(token)));

function counted(model: LanguageModel): () => number {
  let calls = 0;
  const forward = model.forward.bind(model);
  model.forward = (...given) => {
    calls++;
    return forward(...given);
  };
  return () => calls;
}

describe.each(models)("%s", (_, overrides) => {
  test("three rows of forced text and one without: each says what it says alone", async () => {
    const model = await tinyModel({ ...overrides, vocab_size });
    const lone = new LoneStepper(model);
    const formats = [form, form, null, form];
    const expected: number[][] = [];
    for (const [i, format] of formats.entries()) expected.push(await said(lone, prompts[i]!, format));
    const before = mx.liveHandles();
    const calls = counted(model);
    const batch = new BatchStepper(model);
    const all = await Promise.all(formats.map((format, i) => said(batch, prompts[i]!, format)));
    expect(all[2]).toEqual(expected[2]!);
    for (const row of [0, 1, 3]) {
      expect(textOf(all[row]!)).toBe(textOf(expected[row]!));
      expect(textOf(all[row]!)).toMatch(/^<the number is \d\d, and that is all there is: [a-c]{3}>$/);
    }
    // The row without has sixty steps of its own.
    const longest = Math.max(...all.map(({ length }) => length));
    expect(calls()).toBeLessThan(longest + 20);
    batch.dispose();
    expect(mx.liveHandles()).toBe(before);
    model.dispose();
  });

  test("all rows of forced text: fewer passes than tokens", async () => {
    const model = await tinyModel({ ...overrides, vocab_size });
    const calls = counted(model);
    const batch = new BatchStepper(model);
    const all = await Promise.all(prompts.map((prompt) => said(batch, prompt, form)));
    for (const tokens of all) expect(textOf(tokens)).toMatch(/^<the number is \d\d, .*: [a-c]{3}>$/);
    expect(calls()).toBeLessThan(Math.max(...all.map(({ length }) => length)));
    batch.dispose();
    model.dispose();
  });
});

test("how much forced text rows take together", () => {
  expect(commonLength([])).toBe(0);
  expect(commonLength([5])).toBe(5);
  expect(commonLength([4, 4, 4, 0])).toBe(4);
  expect(commonLength([4, 4, 0, 0])).toBe(0);
  expect(commonLength([9, 2, 2, 2])).toBe(2);
  expect(commonLength([0, 0])).toBe(0);
});
