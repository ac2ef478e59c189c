/** A step that is described while the one before it is computed: the same numbers, and as if it were not there until it is run. */
import { expect, test } from "bun:test";
import { fixture } from "../../test/parity/fixtures";
import { type FormulaModel, formulaModel } from "../../test/parity/formula-model";
import * as mx from "../mlx";
import { AdamW } from "../optim";
import { setTraining } from "./dropout";
import { linearToLora, trainableParameters } from "./linear-to-lora";
import type { TokenBatch } from "./token-batch";
import { TrainStep } from "./train-step";

/** Of two rows, each step has others. */
const batch = (step: number): TokenBatch => ({
  tokens: Int32Array.from({ length: 16 }, (_, i) => (i * 7 + step * 13) % 97),
  shape: [2, 8],
  lengths: Int32Array.from([0, 8, 2, 7]),
});
const batches = [1, 2, 3, 4, 5, 6].map(batch);

const numbersOf = (x: mx.Tensor) => [...(x.toArray() as Uint32Array | Float32Array)];

/** With dropout, so that each step draws, and an update every second step. */
async function training(work: (step: TrainStep, parameters: () => unknown) => void): Promise<void> {
  mx.random.seed(1);
  mx.eval(mx.random.state.get());
  const before = mx.liveHandles();
  const model = await formulaModel(fixture<FormulaModel>("models/llama.json"));
  model.freeze();
  mx.random.seed(11);
  linearToLora(model, 2, { rank: 3, scale: 3, dropout: 0.3 });
  setTraining(model, true);
  const optimizer = new AdamW(1e-2, { weightDecay: 0 });
  const step = new TrainStep(model, optimizer, 2);
  work(step, () => trainableParameters(model).map(([path, x]) => [path, x.toList()]));
  for (const one of [step, optimizer, model]) one.dispose();
  mx.random.seed(1);
  mx.eval(mx.random.state.get());
  expect(mx.liveHandles()).toBe(before);
}

interface Course {
  losses: number[];
  parameters: unknown;
}

async function course(following: (index: number) => TokenBatch | null): Promise<Course> {
  const losses: number[] = [];
  let trained: unknown;
  await training((step, parameters) => {
    batches.forEach((each, i) => void losses.push(step.run(each, i + 1, following(i)).loss));
    trained = parameters();
  });
  return { losses, parameters: trained };
}

test("steps that were described ahead are the same steps", async () => {
  const each = await course(() => null);
  expect(new Set(each.losses).size).toBe(batches.length);
  expect(await course((i) => batches[i + 1] ?? null)).toEqual(each);
  // Every second one, and batches that do not come.
  expect(await course((i) => (i % 2 === 0 ? batches[i + 1]! : batch(99)))).toEqual(each);
});

test("what is saved is as of the last step that was run", async () => {
  const saved: number[][][] = [];
  for (const following of [null, batches[1]!]) {
    await training((step) => {
      step.run(batches[0]!, 1, following);
      const drawn = numbersOf(mx.random.state.get());
      const { random, gradients, dispose } = step.state();
      saved.push([random, ...gradients!.values()].map(numbersOf));
      // The step ahead had drawn already.
      expect(Bun.deepEquals(drawn, numbersOf(random))).toBe(following === null);
      dispose();
    });
  }
  expect(saved[1]).toEqual(saved[0]!);
});

test("a batch that the model has no tokens for fails in its own step", async () => {
  const stray = { ...batch(2), tokens: Int32Array.from({ length: 16 }, () => 4096) };
  await training((step) => {
    const key = numbersOf(mx.random.state.get());
    expect(step.run(batches[0]!, 1, stray).loss).toBeGreaterThan(0);
    const drawn = numbersOf(mx.random.state.get());
    expect(drawn).not.toEqual(key);
    expect(() => step.run(stray, 2)).toThrow("the data has token id 4096");
    expect(numbersOf(mx.random.state.get())).toEqual(drawn);
  });
});
