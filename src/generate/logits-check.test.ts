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
