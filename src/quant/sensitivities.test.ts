/** Dynamic quantization's parts beside mlx-lm's: sensitivities, the threshold, the bits that a choice takes. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fixture } from "../../test/parity/fixtures";
import { type FormulaModel, formulaModel } from "../../test/parity/formula-model";
import { bitsPerWeight } from "../convert/quantize-model";
import * as mx from "../mlx";
import { isQuantizable, quantize } from "../nn";
import { BitBudget } from "./bit-budget";
import { estimateSensitivities, type Sensitivities } from "./sensitivities";
import { readSensitivities, sensitivityFile, writeSensitivities } from "./sensitivity-file";

const scratch = mkdtempSync(join(tmpdir(), "mlxlm-sensitivities-"));
afterAll(() => rmSync(scratch, { recursive: true }));
let folders = 0;
const folder = () => mkdtempSync(join(scratch, `${folders++}-`));

interface Case extends FormulaModel {
  name: string;
  rows: number[][];
  sensitivities: [string, number][];
  thresholds: { target: number; threshold: number }[];
}

const { options, models } = fixture<{ options: Record<string, number>; models: Case[] }>("quant-dynamic.json");
const low = { bits: options.low_bits!, groupSize: options.low_group_size! };
const high = { bits: options.high_bits!, groupSize: options.high_group_size! };
const settings = (more: object = {}) => ({ low, high, gradCheckpoint: false, work: folder(), ...more });

function expectClose(got: Sensitivities, expected: Iterable<[string, number]>, tolerance = 1e-3) {
  const wanted = new Map(expected);
  expect([...got.keys()].sort()).toEqual([...wanted.keys()].sort());
  // Sums of terms of both signs: what is small is as uncertain as the largest.
  const scale = Math.max(...[...wanted.values()].map(Math.abs));
  for (const [path, value] of wanted) {
    const off = Math.abs(got.get(path)! - value) / (Math.abs(value) + 0.01 * scale);
    if (off > tolerance) expect({ path, value: got.get(path) }).toEqual({ path, value });
  }
}

describe.each(models.map((one) => [one.name, one] as const))("%s", (_, one) => {
  test("has mlx-lm's sensitivities, checkpointed or not", async () => {
    const model = await formulaModel(one);
    const seen: number[] = [];
    const options = { onBatch: (done: number) => void seen.push(done) };
    expectClose(await estimateSensitivities(model, one.rows, settings(options)), one.sensitivities);
    expect(seen).toEqual([1, 2, 3, 4, 5]);
    expectClose(await estimateSensitivities(model, one.rows, settings({ gradCheckpoint: true })), one.sensitivities);
    model.dispose();
  }, 30_000);

  test("has mlx-lm's thresholds, and takes the bits that were counted", async () => {
    const model = await formulaModel(one);
    const budget = new BitBudget(model, low, high);
    const sensitivities = new Map(one.sensitivities);
    for (const { target, threshold } of one.thresholds) {
      expect(budget.threshold(sensitivities, target)).toBeCloseTo(threshold, 10);
    }
    const { threshold } = one.thresholds[1]!;
    const isHigh = (path: string) => sensitivities.get(path)! > threshold;
    const counted = budget.bitsPerWeight(isHigh);
    const spread = budget.spread(isHigh);
    expect(Math.abs(budget.bitsPerWeight((path) => spread.has(path)) - counted)).toBeLessThan(0.25);
    quantize(model, { predicate: (path, module) => isQuantizable(module) && (isHigh(path) ? high : low) });
    expect(bitsPerWeight(model)).toBeCloseTo(counted, 10);
    model.dispose();
  });
});

test("a target out of reach is an error that names what is in it", async () => {
  const model = await formulaModel(models[0]!);
  const budget = new BitBudget(model, low, high);
  for (const target of [1, 9, Number.NaN]) expect(() => budget.checkTarget(target)).toThrow(/from \d\.\d+ to \d\.\d+/);
  budget.checkTarget(6);
  model.dispose();
});

describe("estimating", () => {
  test("stopped and taken up again gives the same numbers, and leaves nothing behind", async () => {
    const one = models[0]!;
    const model = await formulaModel(one);
    const whole = await estimateSensitivities(model, one.rows, settings());
    const before = mx.liveHandles();
    for (const batches of [1, 3]) {
      const work = folder();
      const stop = new AbortController();
      const onBatch = (done: number) => done === batches && stop.abort();
      const options = settings({ work, onBatch, signal: stop.signal });
      await expect(estimateSensitivities(model, one.rows, options)).rejects.toThrow("stopped");
      const seen: number[] = [];
      const rest = settings({ work, onBatch: (done: number) => void seen.push(done) });
      expect(await estimateSensitivities(model, one.rows, rest)).toEqual(whole);
      expect(seen[0]).toBe(batches + 1);
    }
    expect(mx.liveHandles()).toBe(before);
    model.dispose();
  });

  test("refuses sums that are damaged", async () => {
    const one = models[0]!;
    const model = await formulaModel(one);
    for (const text of ["", "[1]", '{"batches": -1, "sums": {}}', '{"batches": 1, "sums": {"a": 1}}']) {
      const work = folder();
      writeFileSync(join(work, "sums.json"), text);
      const run = estimateSensitivities(model, one.rows, settings({ work }));
      await expect(run).rejects.toThrow("does not hold this model's sums");
    }
    model.dispose();
  });

  test("refuses gradients that are not finite", async () => {
    const one = models[0]!;
    const model = await formulaModel(one);
    mx.scope(() => model.update([["model.norm.weight", mx.full([64], Number.NaN)]]));
    await expect(estimateSensitivities(model, one.rows, settings())).rejects.toThrow("is not finite");
    model.dispose();
  });
});

describe("the file", () => {
  test("is Python's list of pairs, under its name", async () => {
    expect(sensitivityFile("org/name")).toBe("org_name_sensitivities.json");
    const path = join(scratch, "list.json");
    const sensitivities = new Map([
      ["a.b", 0.25],
      ["c", -1e-7],
    ]);
    await writeSensitivities(path, sensitivities);
    expect(JSON.parse(readFileSync(path, "utf8"))).toEqual([...sensitivities]);
    expect(await readSensitivities(path, ["c", "a.b"])).toEqual(new Map([...sensitivities].reverse()));
  });

  test.each([
    ["", "no JSON list"],
    ['{"a": 1}', "no JSON list"],
    ['[["a", "b"]]', "no JSON list"],
    ["[[1, 2]]", "no JSON list"],
    ['[["a", 1]]', "says nothing of b and 1 more"],
  ])("%s is an error", async (text, message) => {
    const path = join(scratch, "wrong.json");
    writeFileSync(path, text);
    await expect(readSensitivities(path, ["a", "b", "c"])).rejects.toThrow(message);
  });

  test("that is missing is an error", async () => {
    await expect(readSensitivities(join(scratch, "none.json"), [])).rejects.toThrow("there is no file");
  });
});
