/** Training with all parameters in one row is training with each by itself: the same steps, states and numbers. */
import { expect, test } from "bun:test";
import { fixture } from "../../test/parity/fixtures";
import { type FormulaModel, formulaModel } from "../../test/parity/formula-model";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { Adafactor, AdamW, type Optimizer, Sgd } from "../optim";
import { linearToLora, trainableParameters } from "./linear-to-lora";
import { ParameterRow } from "./parameter-row";
import type { TokenBatch } from "./token-batch";
import { TrainStep } from "./train-step";

const tensorOf = (values: readonly number[], ...shape: number[]) => mx.array(values, "float32", shape);

test("tensors lie side by side in a row, each at a multiple of 64, and come back as they were", () => {
  const before = mx.liveHandles();
  mx.scope(() => {
    const parameters: [string, mx.Tensor][] = [
      ["a.x", tensorOf([1, 2, 3, 4, 5, 6], 2, 3)],
      ["b.x", mx.arange(64).astype("float32")],
      ["c.x", tensorOf([7], 1)],
    ];
    const row = new ParameterRow(parameters);
    const joined = row.join(parameters.map(([, x]) => x));
    expect(joined.shape).toEqual([192]);
    const values = [...(joined.toArray() as Float32Array)];
    expect([values[0], values[5], values[6], values[63], values[64], values[127], values[128], values[129]]).toEqual([
      1, 6, 0, 0, 0, 63, 7, 0,
    ]);
    const parts = row.split(joined);
    expect(parts.map(([path, x]) => [path, x.toList()])).toEqual(parameters.map(([path, x]) => [path, x.toList()]));
    const state = row.splitState([["row.m", joined]]);
    expect(state.map(([name]) => name)).toEqual(["a.x.m", "b.x.m", "c.x.m"]);
    const [[name, again]] = row.joinState(new Map(state)) as [[string, mx.Tensor]];
    expect(name).toBe("row.m");
    expect(mx.arrayEqual(again, joined).item()).toBe(1);
    expect(() => row.joinState(new Map(state.slice(0, 2)))).toThrow("the state of this training has no c.x.m");
  });
  expect(mx.liveHandles()).toBe(before);
});

test("a row is for rules that treat each number by itself, for float32, and for little beside a model", () => {
  mx.scope(() => {
    const wide: [string, mx.Tensor][] = [["a", mx.zeros([4])]];
    expect(ParameterRow.fits(wide, [], new AdamW(1))).toBe(true);
    expect(ParameterRow.fits(wide, [], new Adafactor(1))).toBe(false);
    expect(ParameterRow.fits([...wide, ["b", mx.zeros([4], "float16")]], [], new AdamW(1))).toBe(false);
    const many = (millions: number): [string, mx.Tensor] => ["x", mx.zeros([1]).broadcastTo([millions, 1 << 20])];
    expect(ParameterRow.fits([many(5)], [], new AdamW(1))).toBe(false);
    expect(ParameterRow.fits([many(5)], [many(79)], new AdamW(1))).toBe(false);
    expect(ParameterRow.fits([many(5)], [many(80)], new AdamW(1))).toBe(true);
    expect(ParameterRow.fits([many(1024), many(1023)], [many(40_000)], new AdamW(1))).toBe(true);
    expect(ParameterRow.fits([many(1024), many(1024)], [many(40_000)], new AdamW(1))).toBe(false);
  });
});

async function prepared(): Promise<LanguageModel> {
  const model = await formulaModel(fixture<FormulaModel>("models/llama.json"));
  model.freeze();
  mx.random.seed(11);
  linearToLora(model, 2, { rank: 3, scale: 3, dropout: 0 });
  return model;
}

/** Of three rows, each step has others. */
const batch = (step: number): TokenBatch => ({
  tokens: Int32Array.from({ length: 24 }, (_, i) => (i * 7 + step * 13) % 97),
  shape: [3, 8],
  lengths: Int32Array.from([0, 8, 0, 6, 2, 8]),
});

/** A group of this process alone takes the way of several. */
const alone = () => mx.distributed.init();

/** The optimizer as one that may not put parameters together. */
const apart = (optimizer: Optimizer): Optimizer => Object.assign(optimizer, { isElementwise: false });

interface Way {
  group?: mx.distributed.Group | null;
  /** Saved and gone on with behind the third step, between two updates. */
  isResumed?: boolean;
}

/** Six steps, an update every second one. */
async function trained(makeOptimizer: () => Optimizer, { group = null, isResumed = false }: Way = {}) {
  let model = await prepared();
  let optimizer = makeOptimizer();
  let step = new TrainStep(model, optimizer, 2, group);
  const losses: number[] = [];
  for (let number = 1; number <= 6; number++) {
    losses.push(step.run(batch(number), number).loss);
    if (!isResumed || number !== 3) continue;
    const state = step.state();
    const numbersOf = (x: mx.Tensor) => mx.scope(() => [...(x.flatten().toArray() as Float32Array)]);
    const copied = (tensors: ReadonlyMap<string, mx.Tensor>) =>
      new Map([...tensors].map(([name, x]) => [name, mx.array(numbersOf(x), "float32", x.shape)]));
    const saved = {
      optimizer: { step: 1, tensors: copied(state.optimizer) },
      gradients: copied(state.gradients!),
      random: mx.array(numbersOf(state.random), "uint32"),
    };
    expect([...saved.gradients.keys()]).toEqual(trainableParameters(model).map(([path]) => path));
    state.dispose();
    const parameters = copied(new Map(trainableParameters(model)));
    for (const one of [step, optimizer, model]) one.dispose();
    model = await prepared();
    model.loadWeights(parameters, { strict: false });
    optimizer = makeOptimizer();
    step = new TrainStep(model, optimizer, 2, group);
    step.resume(saved);
  }
  const parameters = new Map(trainableParameters(model).map(([path, x]) => [path, x.toList()]));
  for (const one of [step, optimizer, model]) one.dispose();
  return { losses, parameters };
}

test.each([
  ["AdamW", () => new AdamW(1e-2, { weightDecay: 0.1, biasCorrection: true })],
  ["SGD with momentum", () => new Sgd(1e-1, { momentum: 0.9 })],
])("%s changes a row as it changes each parameter, and goes on from its state", async (_, optimizer) => {
  const each = await trained(() => apart(optimizer()));
  const before = mx.liveHandles();
  const row = await trained(optimizer);
  const resumed = await trained(optimizer, { isResumed: true });
  const ofGroup = await trained(optimizer, { group: alone() });
  const resumedOfGroup = await trained(optimizer, { group: alone(), isResumed: true });
  for (const { losses, parameters } of [row, resumed, ofGroup, resumedOfGroup]) {
    each.losses.forEach((loss, i) => void expect(losses[i]!).toBeCloseTo(loss, 5));
    expect([...parameters.keys()]).toEqual([...each.parameters.keys()]);
    for (const [path, values] of each.parameters) {
      const numbers = (list: unknown) => (list as number[][]).flat();
      numbers(values).forEach((value, i) => void expect(numbers(parameters.get(path))[i]!).toBeCloseTo(value, 5));
    }
  }
  expect(row.losses).toEqual(resumed.losses);
  expect(ofGroup.losses).toEqual(resumedOfGroup.losses);
  expect(mx.liveHandles()).toBe(before);
});
