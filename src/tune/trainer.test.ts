/** Loss curves against mlx-lm's trainer: the same models, data and seeds. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bytesInUse, countExactBytes } from "../../test/exact-bytes";
import { fixture } from "../../test/parity/fixtures";
import { type FormulaModel, formulaModel } from "../../test/parity/formula-model";
import { UserError } from "../errors";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { quantize } from "../nn";
import { Adafactor, AdamW, cosineDecay, Muon, Sgd } from "../optim";
import { Dropout } from "./dropout";
import { linearToLora, unfreezeBlocks } from "./linear-to-lora";
import type { TokenBatch } from "./token-batch";
import { type TrainingEvent, type TrainingOptions, train } from "./trainer";
import { readTrainingState } from "./training-state";

countExactBytes();

interface Curve {
  name: string;
  kind: "lora" | "dora" | "full";
  keys?: string[];
  quantized?: boolean;
  accumulation?: number;
  checkpoint?: boolean;
  optimizer?: keyof typeof optimizers;
  losses: number[];
  tokens: number;
  validations: [iteration: number, loss: number][];
  /** Mean squares of what was saved. */
  saved: Record<string, number>;
}

const curves = fixture<Curve[]>("tune-curves.json");

const folder = mkdtempSync(join(tmpdir(), "mlxlm-train-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** The oracle's samples: ids that repeat with a period, and how many of them have no loss. */
const samples = Array.from({ length: 12 }, (_, i) => {
  const length = [9, 20, 33, 14][i % 4]! + i;
  return { tokens: Array.from({ length }, (_, t) => (7 * i + 13 * (t % (3 + (i % 4))) + 1) % 256), offset: i % 3 };
});

const [rows, longest] = [2, 40];

/** Batches of the first `count` samples by length, as the reference makes them where nothing is shuffled. */
function* inOrder(count: number): Generator<TokenBatch> {
  const sorted = samples.slice(0, count).sort((a, b) => a.tokens.length - b.tokens.length);
  for (let i = 0; i + rows <= count; i += rows) {
    const chosen = sorted.slice(i, i + rows);
    const most = Math.max(...chosen.map(({ tokens }) => tokens.length));
    const length = Math.min(1 + 32 * Math.ceil(most / 32), longest);
    const tokens = new Int32Array(rows * length);
    const lengths = new Int32Array(rows * 2);
    chosen.forEach((sample, row) => {
      const kept = sample.tokens.slice(0, longest);
      tokens.set(kept, row * length);
      lengths.set([sample.offset, kept.length], row * 2);
    });
    yield { tokens, shape: [rows, length], lengths };
  }
}

function* endless(): Generator<TokenBatch, never> {
  for (;;) yield* inOrder(samples.length);
}

async function prepared({ name, kind, keys, quantized }: Curve): Promise<LanguageModel> {
  const model = await formulaModel(fixture<FormulaModel>(`models/${name}.json`));
  if (quantized) mx.scope(() => quantize(model, { groupSize: 32, bits: 4 }));
  model.freeze();
  mx.random.seed(11);
  if (kind === "full") unfreezeBlocks(model, 2);
  else linearToLora(model, 2, { rank: 4, scale: 3, dropout: 0, keys, dora: kind === "dora" });
  return model;
}

/** The oracle's. */
const optimizers = {
  // Adam is AdamW without decay.
  adam: () => new AdamW(1e-3, { weightDecay: 0 }),
  adamw: () => new AdamW(1e-3, { weightDecay: 0.1, biasCorrection: true }),
  sgd: () => new Sgd(cosineDecay(1e-1, 100), { momentum: 0.5, nesterov: true, weightDecay: 0.01 }),
  muon: () => new Muon(1e-3),
  adafactor: () => new Adafactor(1e-3),
};
const { adam } = optimizers;

const options = (name: string, more: Partial<TrainingOptions> = {}): TrainingOptions => ({
  folder: join(folder, name),
  iterations: 100,
  batches: endless(),
  stepsPerReport: 1,
  stepsPerEval: 40,
  stepsPerSave: 1000,
  ...more,
});

function firstThree(): TokenBatch[] {
  return [...inOrder(7)].slice(0, 3);
}

/**
 * A loss is a difference of logits of about ten: the last bit of those, and of every step before, is left in it however
 * near to nothing it comes. How far 100 steps take that hangs on the order of a processor's sums: up to 1.003e-4 with OpenBLAS's kernels
 * for AVX-512.
 */
const isClose = (loss: number, expected: number) => Math.abs(loss - expected) < 2e-4 * Math.max(expected, 1);

for (const [i, curve] of curves.entries()) {
  const { name, kind, quantized, accumulation, checkpoint, optimizer: rule = "adam" } = curve;
  const title = [quantized && "4-bit", name, kind, accumulation && "accumulated", checkpoint && "checkpointed", rule];
  test(`${title.filter(Boolean).join(" ")}: 100 losses are mlx-lm's`, async () => {
    mx.eval(mx.random.state.get());
    const before = mx.liveHandles();
    const model = await prepared(curve);
    const optimizer = optimizers[rule]();
    const events: TrainingEvent[] = [];
    mx.enableCpuKernels(false);
    const end = await train(
      model,
      optimizer,
      options(`${i}`, {
        validation: firstThree,
        gradientAccumulation: accumulation,
        gradientCheckpoint: checkpoint,
        onEvent: (event) => events.push(event),
      }),
    ).finally(() => mx.enableCpuKernels(true));
    expect(end).toMatchObject({ iteration: 100, interrupted: false });

    const losses = events.flatMap((event) => (event.type === "train" ? [event.loss] : []));
    expect(losses.length).toBe(curve.losses.length);
    losses.forEach((loss, step) => {
      const expected = curve.losses[step]!;
      if (!isClose(loss, expected)) expect({ step, loss }).toEqual({ step, loss: expected });
    });
    const validations = events.flatMap((event) => (event.type === "val" ? [[event.iteration, event.loss]] : []));
    expect(validations.map(([iteration]) => iteration)).toEqual(curve.validations.map(([iteration]) => iteration));
    validations.forEach(([, loss], at) => {
      const expected = curve.validations[at]![1];
      if (!isClose(loss!, expected)) expect(loss).toBe(expected);
    });
    const last = events.findLast((event) => event.type === "train")!;
    expect(last.trained_tokens).toBe(curve.tokens);

    const saved = mx.loadSafetensors(join(folder, `${i}`, "adapters.safetensors")).arrays;
    expect([...saved.keys()].sort()).toEqual(Object.keys(curve.saved).sort());
    mx.scope(() => {
      for (const [path, expected] of Object.entries(curve.saved)) {
        const square = saved.get(path)!.square().mean().item();
        expect(Math.abs(square / expected - 1)).toBeLessThan(1e-3);
      }
    });
    for (const tensor of saved.values()) tensor.dispose();
    optimizer.dispose();
    model.dispose();
    mx.random.seed(1);
    mx.eval(mx.random.state.get());
    expect(mx.liveHandles()).toBe(before);
  }, 60_000);
}

test("500 steps leave nothing behind: neither tensors nor functions nor memory", async () => {
  const [curve] = curves as [Curve];
  const model = await prepared(curve);
  const optimizer = adam();
  const figures = new Map<number, number[]>();
  await train(
    model,
    optimizer,
    options("flat", {
      iterations: 500,
      stepsPerReport: 100,
      gradientAccumulation: 2,
      onEvent(event) {
        if (event.type !== "train") return;
        figures.set(event.iteration, [mx.liveHandles(), mx.liveFunctions(), bytesInUse()]);
      },
    }),
  );
  // The 500th has no step behind it that would be described already.
  expect(figures.get(400)).toEqual(figures.get(100)!);
  optimizer.dispose();
  model.dispose();
}, 60_000);

test("an interrupt ends after the step, with a checkpoint", async () => {
  const model = await prepared(curves[0]!);
  const optimizer = adam();
  const controller = new AbortController();
  const events: TrainingEvent[] = [];
  const end = await train(
    model,
    optimizer,
    options("interrupted", {
      onStep: (iteration) => iteration === 7 && controller.abort(),
      onEvent: (event) => events.push(event),
      stepsPerReport: 100,
      signal: controller.signal,
    }),
  );
  expect(end).toMatchObject({ iteration: 7, interrupted: true });
  const path = join(folder, "interrupted", "0000007_adapters.safetensors");
  expect(events).toEqual([{ type: "saved", iteration: 7, path }]);
  expect(readdirSync(join(folder, "interrupted")).sort()).toEqual([
    "0000007_adapters.safetensors",
    "adapters.safetensors",
    "state",
  ]);
  optimizer.dispose();
  model.dispose();
});

test.each<[string, number, RegExp]>([
  ["a loss", 6, /^the loss of iteration 8 is (NaN|Infinity); its batch has 2 rows: \d+ tokens; \d+ tokens$/],
  ["a parameter", 5, /^after iteration 6, .* holds numbers that are not finite: nothing was saved$/],
])("%s that is no number ends the training and leaves the last checkpoint", async (name, steps, message) => {
  const model = await prepared(curves[0]!);
  const optimizer = new AdamW((step) => (step < steps ? 1e-3 : 1e38), { weightDecay: 0 });
  const running = train(model, optimizer, options(name, { stepsPerSave: 3, iterations: 50 }));
  const error = await running.catch((thrown) => thrown);
  expect(error).toBeInstanceOf(UserError);
  expect(error.message).toMatch(message);
  const { arrays } = mx.loadSafetensors(join(folder, name, "adapters.safetensors"));
  mx.scope(() => {
    for (const [, tensor] of arrays) expect(mx.isfinite(tensor).all().item()).toBe(1);
  });
  for (const tensor of arrays.values()) tensor.dispose();
  optimizer.dispose();
  model.dispose();
});

test("a token that the model lacks is an error, not a read of foreign memory", async () => {
  const model = await prepared(curves[0]!);
  const optimizer = adam();
  const bad = { tokens: Int32Array.of(1, 256, 3, 4), shape: [1, 4] as const, lengths: Int32Array.of(0, 4) };
  const running = train(model, optimizer, options("stray", { batches: [bad, bad].values() }));
  expect(running).rejects.toThrow("the data has token id 256, but the model has 256 tokens");
  await running.catch(() => {});
  optimizer.dispose();
  model.dispose();
});

describe("a training that was interrupted goes on", () => {
  /** Losses and validations from the first step to the last, ending and resuming after the given steps. */
  async function run(name: string, stops: number[], curve: Partial<Curve>, dropout = 0): Promise<TrainingEvent[]> {
    const events: TrainingEvent[] = [];
    for (const stop of [...stops, 40]) {
      const before = mx.liveHandles();
      const model = await prepared({ ...curves[0]!, ...curve });
      for (const [, module] of model.namedModules()) {
        if (module instanceof Dropout) Object.assign(module, { kept: 1 - dropout });
      }
      const optimizer = adam();
      const controller = new AbortController();
      const settings = { rows, seed: 11 };
      const resumed = stop !== (stops[0] ?? 40);
      await train(
        model,
        optimizer,
        options(name, {
          iterations: 40,
          stepsPerReport: 4,
          stepsPerEval: 10,
          validation: firstThree,
          gradientAccumulation: curve.accumulation,
          gradientCheckpoint: curve.checkpoint,
          onStep: (iteration) => iteration === stop && stop < 40 && controller.abort(),
          onEvent: (event) => events.push(event),
          signal: controller.signal,
          settings,
          resume: resumed ? await readTrainingState(join(folder, name), settings) : undefined,
        }),
      );
      optimizer.dispose();
      model.dispose();
      mx.random.seed(1);
      mx.eval(mx.random.state.get());
      expect(mx.liveHandles()).toBe(before);
    }
    return events;
  }

  const numbers = (events: TrainingEvent[]) =>
    events.flatMap((event) => (event.type === "saved" ? [] : [[event.type, event.iteration, event.loss]]));

  test.each<[string, Partial<Curve>, number]>([
    ["lora", {}, 0],
    ["lora with dropout", {}, 0.3],
    ["dropout in checkpointed blocks", { checkpoint: true }, 0.3],
    ["full", { kind: "full" }, 0],
    ["accumulated gradients", { accumulation: 3 }, 0],
  ])(
    "%s: as if it had never ended",
    async (name, curve, dropout) => {
      mx.eval(mx.random.state.get());
      const whole = await run(`${name}-whole`, [], curve, dropout);
      const parts = await run(`${name}-parts`, [7, 10, 23], curve, dropout);
      const [expected, found] = [numbers(whole), numbers(parts)];
      expect(found.map(([type, iteration]) => [type, iteration])).toEqual(
        expected.map(([type, iteration]) => [type, iteration]),
      );
      found.forEach(([, , loss], i) => {
        expect(Math.abs((loss as number) - (expected[i]![2] as number))).toBeLessThan(1e-6);
      });
      if (dropout > 0) expect(found).not.toEqual(numbers(await run(`${name}-other`, [], curve, 0)));
    },
    60_000,
  );

  test("not with other settings, not from nothing, not from a broken file", async () => {
    const name = join(folder, "lora-parts");
    await expect(readTrainingState(name, { rows, seed: 12 })).rejects.toThrow("another seed: it was 11, not 12");
    await expect(readTrainingState(join(folder, "nowhere"), {})).rejects.toThrow("no training to resume");
    const path = join(name, "state", "training.safetensors");
    const sound = readFileSync(path);
    const before = mx.liveHandles();
    for (const [bytes, message] of [
      [sound.subarray(0, 100), "not a sound safetensors file"],
      [Buffer.from(sound.toString("latin1").replace("training", "trainink"), "latin1"), "how far the training got"],
      [Buffer.from(sound.toString("latin1").replace("iteration", "iteratian"), "latin1"), '"progress.iteration"'],
      [Buffer.from(sound.toString("latin1").replace('"random"', '"randon"'), "latin1"), "the random generator's key"],
    ] as const) {
      writeFileSync(path, bytes);
      await expect(readTrainingState(name, { rows, seed: 11 })).rejects.toThrow(message);
    }
    expect(mx.liveHandles()).toBe(before);
  });
});
