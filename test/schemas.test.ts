/** A part of `bun run schemas`: every hand-made schema and some by chance, each answered by one model. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import type { Schema } from "../src/sample/grammar/schema-place";
import { answerTo, problemOf, randomSteppers } from "./schemas/answers";
import { schemas } from "./schemas/generated";
import { handmade } from "./schemas/handmade";

const [stepper] = await randomSteppers(1);

/** What is cut says nothing: a model with random weights may go on for long. */
let cut = 0;

async function expectValid(schema: Schema, seed: number): Promise<void> {
  const { text, complete } = await answerTo(schema, stepper!, seed, 300);
  if (complete) expect([text, problemOf(text, schema)]).toEqual([text, null]);
  else cut++;
}

for (const [name, schema] of Object.entries(handmade)) {
  test(`${name}: what a model with random weights writes is valid`, () => expectValid(schema, 1));
}

test("schemas by chance: what a model writes is valid", async () => {
  for (const [i, schema] of fc.sample(schemas, { numRuns: 20, seed: 7 }).entries()) await expectValid(schema, i);
}, 30_000);

test("hardly any answer was cut", () => expect(cut).toBeLessThan(12));
