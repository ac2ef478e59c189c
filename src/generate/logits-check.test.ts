/** A model whose logits are no numbers ends in words, whoever steps it, and leaves nothing behind. */
import { expect, test } from "bun:test";
import { tinyModel } from "../../test/tiny-model";
import { UserError } from "../errors";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { BatchStepper } from "./batch";
import { DraftStepper } from "./draft-stepper";
import { LoneStepper } from "./lone-stepper";
import type { Stepper } from "./stepper";

/** A model that gives `value` for the logits of every token from its `from`-th call on. */
async function broken(value: number, from: number): Promise<LanguageModel> {
  const model = await tinyModel();
  const forward = model.forward.bind(model);
  let calls = 0;
  model.forward = (inputs, options) => {
    const logits = forward(inputs, options);
    return ++calls >= from ? logits.multiply(0).add(value) : logits;
  };
  return model;
}

const steppers: Record<string, (model: LanguageModel) => Promise<Stepper>> = {
  alone: async (model) => new LoneStepper(model),
  "in a batch": async (model) => new BatchStepper(model),
  "with a draft": async (model) => new DraftStepper(model, { model: await tinyModel(), tokens: 2 }),
};

async function made(stepper: Stepper, maxTokens: number): Promise<number> {
  let count = 0;
  for await (const { logprobs } of stepper.steps({ prompt: [5, 6, 7], maxTokens })) {
    logprobs?.dispose();
    count++;
  }
  return count;
}

for (const [how, make] of Object.entries(steppers)) {
  for (const [value, words] of [
    [Number.NaN, "not numbers but NaN"],
    [Number.POSITIVE_INFINITY, "not numbers but infinity"],
  ] as const) {
    test(`logits of ${value} ${how}: no token, and words`, async () => {
      const stepper = await make(await broken(value, 1));
      const error = await made(stepper, 5).catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(UserError);
      expect((error as UserError).message).toContain(words);
      stepper.dispose();
    });
  }

  test(`logits that turn into NaN ${how}: an end soon after`, async () => {
    // Token 0 comes of them, which has the next step looked at.
    const stepper = await make(await broken(Number.NaN, 6));
    await expect(made(stepper, 200)).rejects.toThrow("not numbers but NaN");
    stepper.dispose();
  });
}

test("nothing is left of a model that ended so", async () => {
  const before = mx.liveHandles();
  for (const make of [steppers.alone!, steppers["in a batch"]!]) {
    const model = await broken(Number.NaN, 1);
    const stepper = await make(model);
    await made(stepper, 5).catch(() => {});
    stepper.dispose();
    model.dispose();
  }
  expect(mx.liveHandles()).toBe(before);
});

test("in a batch, the row whose logits are no numbers ends in words, and the others go on as they do alone", async () => {
  const sick = 50;
  const model = await tinyModel();
  const healthy = new LoneStepper(model);
  const prompts = [
    [5, 6, 7],
    [8, 9, 10],
    [11, 12, 13, 14],
  ];
  const said = async (stepper: Stepper, prompt: number[]) => {
    const tokens: number[] = [];
    for await (const { token } of stepper.steps({ prompt, maxTokens: 12 })) tokens.push(token);
    return tokens;
  };
  const expected = await Promise.all(prompts.map((prompt) => said(healthy, prompt)));
  const before = mx.liveHandles();
  const forward = model.forward.bind(model);
  // A row that has read a certain token gets NaN from then on: its cache is spoilt.
  let rows: boolean[] = [];
  model.forward = (inputs, options) => {
    const ids = inputs.toArray() as Uint32Array;
    const length = inputs.dim(1);
    if (inputs.dim(0) !== rows.length) rows = Array.from({ length: inputs.dim(0) }, () => false);
    rows = rows.map((was, row) => was || ids.slice(row * length, (row + 1) * length).includes(sick));
    const spoil = mx.array(rows.map((is) => (is ? Number.NaN : 0))).reshape(-1, 1, 1);
    return forward(inputs, options).add(spoil);
  };
  const batch = new BatchStepper(model);
  const all = await Promise.all([
    ...prompts.map((prompt) => said(batch, prompt)),
    said(batch, [3, sick, sick]).catch((error: unknown) => error),
  ]);
  expect(all.slice(0, 3)).toEqual(expected);
  expect(all[3]).toBeInstanceOf(UserError);
  expect((all[3] as UserError).message).toContain("not numbers but NaN");
  // And the batch takes new ones.
  expect(await said(batch, prompts[0]!)).toEqual(expected[0]!);
  batch.dispose();
  expect(mx.liveHandles()).toBe(before);
  model.dispose();
});
