/** DWQ's loss curves against mlx-lm's: the same models, data and seed. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fixture } from "../../test/parity/fixtures";
import { type FormulaModel, formulaModel } from "../../test/parity/formula-model";
import { NumpyRandom } from "../mersenne";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { quantize, swiglu } from "../nn";
import { AdamW } from "../optim";
import { type Dataset, iterateBatches } from "../tune/data";
import { checkpointBlocks } from "../tune/gradient-checkpoint";
import { trainableLine, trainableParameters } from "../tune/linear-to-lora";
import { Distillation, type DwqEvent, type DwqOptions, unfreezeScales } from "./dwq";
import { computeTargets, hasTargets, inputsOf, readTarget } from "./dwq-targets";

interface Curve extends FormulaModel {
  name: string;
  bits: number;
  targets: boolean;
  checkpoint: boolean;
  /** Of each batch: of the first validation, of the training, of the last validation. */
  losses: number[];
  tokens: number[];
  trainable: string;
  lines: string[];
  /** Mean squares of what was trained. */
  saved: Record<string, number>;
}

const { seed, batch, longest, rate, curves } = fixture<{
  seed: number;
  batch: number;
  longest: number;
  rate: number;
  curves: Curve[];
}>("quant-dwq.json");

const folder = mkdtempSync(join(tmpdir(), "mlxlm-dwq-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** The oracle's samples, shortest first. */
function samples(count: number, first: number, vocabulary: number): Dataset {
  const rows = Array.from({ length: count }, (_, n) => {
    const i = first + n;
    const length = Math.min(longest, [9, 20, 33, 14][i % 4]! + i);
    return Int32Array.from({ length }, (_, t) => (7 * i + 13 * (t % (3 + (i % 4))) + 1) % vocabulary);
  }).sort((a, b) => a.length - b.length);
  return { length: count, at: (i) => ({ tokens: rows[i]!, offset: 0 }), where: (i) => `sample ${i}` };
}

function batchesFor({ config }: Curve): DwqOptions["batches"] {
  const vocabulary = config.vocab_size as number;
  const iterate = (data: Dataset) => () =>
    iterateBatches(data, { batchSize: batch, maxSeqLength: longest, random: new NumpyRandom(seed) });
  return { train: iterate(samples(42, 0, vocabulary)), valid: iterate(samples(6, 42, vocabulary)) };
}

const counts = { train: 21, valid: 3 };

async function studentOf(curve: Curve): Promise<LanguageModel> {
  const student = await formulaModel(curve);
  mx.scope(() => quantize(student, { groupSize: 32, bits: curve.bits }));
  mx.eval(student.parameters());
  unfreezeScales(student);
  return student;
}

const adam = () => new AdamW(rate, { weightDecay: 0, biasCorrection: true });

const liveTarget =
  (teacher: LanguageModel): DwqOptions["target"] =>
  async (one) => ({ logits: mx.scope(() => teacher.forward(inputsOf(one))), indices: null });

function expectClose(got: readonly number[], wanted: readonly number[], share: number) {
  expect(got.length).toBe(wanted.length);
  const off = got.findIndex((value, i) => Math.abs(value / wanted[i]! - 1) > share);
  if (off >= 0) expect({ at: off, value: got[off] }).toEqual({ at: off, value: wanted[off] });
}

describe("losses are mlx-lm's", () => {
  test.each(curves.map((curve) => [curve.name, curve] as const))(
    "%s",
    async (name, curve) => {
      mx.eval(mx.random.state.get());
      // A compiled activation is made at its first use, for good.
      mx.scope(() => mx.grad((x: mx.Tensor) => swiglu(x, x).sum())(mx.ones([2])));
      const live = mx.liveHandles();
      const functions = mx.liveFunctions();
      const batches = batchesFor(curve);
      const teacher = await formulaModel(curve);
      const student = await studentOf(curve);
      expect(trainableLine(student)).toBe(curve.trainable);
      let target = liveTarget(teacher);
      if (curve.targets) {
        const place = join(folder, name);
        const facts = { model: name };
        await computeTargets(teacher, place, { facts, batches, counts });
        expect(await hasTargets(place, counts, facts)).toBe(true);
        target = (one, index, split) => readTarget(place, split, index, one, student.vocabSize);
      }
      const undo = curve.checkpoint ? checkpointBlocks(student.layers) : () => {};
      const optimizer = adam();
      const events: DwqEvent[] = [];
      const steps: number[] = [];
      const distillation = new Distillation(student, optimizer, {
        ...{ batches, target, dtype: "float32" },
        onEvent: (event) => events.push(event),
        onStep: (_, loss) => steps.push(loss),
      });
      const progress = await distillation.run();
      undo();
      expectClose(steps, curve.losses.slice(counts.valid, -counts.valid), 1e-4);
      const mean = (losses: number[], tokens: number[]) =>
        losses.reduce((sum, loss, i) => sum + loss * tokens[i]!, 0) / tokens.reduce((a, b) => a + b);
      const first = mean(curve.losses.slice(0, counts.valid), curve.tokens.slice(0, counts.valid));
      const last = mean(curve.losses.slice(-counts.valid), curve.tokens.slice(-counts.valid));
      expectClose([progress.initial!, progress.latest!], [first, last], 1e-4);
      const report = events.find((event) => event.type === "train")!;
      expect(curve.lines[1]).toStartWith(
        `it=${report.iteration}, avg_loss=${report.loss.toFixed(4)}, total_tokens=${report.trained_tokens}, `,
      );
      const saved = mx.scope(() =>
        Object.fromEntries(trainableParameters(student).map(([path, x]) => [path, x.square().mean().item()])),
      );
      expect(Object.keys(saved).sort()).toEqual(Object.keys(curve.saved));
      expectClose(
        Object.keys(curve.saved).map((path) => saved[path]!),
        Object.values(curve.saved),
        1e-4,
      );

      distillation.dispose();
      optimizer.dispose();
      teacher.dispose();
      student.dispose();
      expect(mx.liveHandles()).toBe(live);
      expect(mx.liveFunctions()).toBe(functions);
    },
    60_000,
  );
});
