/** The committed demo model does what it was taught. */
import { expect, test } from "bun:test";
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { loadModel } from "../convert/load";
import { answer as answerTo } from "../generate/answer";
import { LoneStepper } from "../generate/lone-stepper";
import { encodePrompt } from "../generate/prompt";
import { wrongSums } from "./evaluate";
import { demoFolder } from "./folder";
import { heldOutPairs } from "./sums";

const { model, tokenizer } = await loadModel(demoFolder());

async function answer(question: string): Promise<{ text: string; finish: string | null }> {
  let text = "";
  let finish: string | null = null;
  const request = { prompt: await encodePrompt(tokenizer, question), maxTokens: 300 };
  for await (const part of answerTo(request, { stepper: new LoneStepper(model), tokenizer })) {
    if (part.type === "text") text += part.text;
    if (part.type === "end") finish = part.finish_reason;
  }
  return { text, finish };
}

test("its files stay under 8 MB", () => {
  const size = readdirSync(demoFolder()).reduce((sum, name) => sum + statSync(join(demoFolder(), name)).size, 0);
  expect(size).toBeLessThan(8e6);
});

test("at least 95 of 100 held-out sums are right", async () => {
  const pairs = heldOutPairs()
    .filter((_, i) => i % 8 === 0)
    .slice(0, 100);
  expect(pairs.length).toBe(100);
  const wrong = await wrongSums(model, tokenizer, pairs);
  expect(wrong.length, JSON.stringify(wrong)).toBeLessThanOrEqual(5);
}, 120_000);

test("it tells a story from beginning to end", async () => {
  const { text, finish } = await answer("Tell me a story about a fox.");
  expect(text).toContain("fox");
  expect(text.length).toBeGreaterThan(200);
  expect(finish).toBe("stop");
});

test("it goes on with a story's first words", async () => {
  const { text, finish } = await answer("Once upon a time");
  expect(text).toStartWith(", there was a ");
  expect(text.length).toBeGreaterThan(200);
  expect(finish).toBe("stop");
});

test("it says what it is, and greets back", async () => {
  expect((await answer("hello")).text).toContain("Hello!");
  expect((await answer("What is mlxlm?")).text).toContain("language models");
  expect((await answer("What is the capital of France?")).text).toContain("small demo model");
});
