import { type ModelConfig, tokenizerOptions } from "../convert/config";
import { openWeights } from "../convert/load";
import { architecturePredicate, bitsPerWeight, parameterCount, quantizeModel } from "../convert/quantize-model";
import { checkTarget, saveModel } from "../convert/save";
import { readConfig } from "../convert/source";
import { ExitCode, UserError } from "../errors";
import { NumpyRandom } from "../mersenne";
import * as mx from "../mlx";
import { isLead } from "../mlx/group-environment";
import type { LanguageModel } from "../models";
import { withWiredLimit } from "../models/wired";
import type { QuantizationConfig } from "../nn";
import { AdamW } from "../optim";
import { loadTokenizer } from "../text/tokenizer";
import { ownRows, trainingGroup } from "../tune/across-ranks";
import { iterateBatches } from "../tune/data";
import { checkpointBlocks } from "../tune/gradient-checkpoint";
import { trainableLine, trainableParameters } from "../tune/linear-to-lora";
import { quantizingGroup } from "./across-ranks";
import type { Calibration } from "./calibration";
import { Distillation, type DwqEvent, type DwqOptions, type DwqProgress, dwqDtype, unfreezeScales } from "./dwq";
import { type DwqData, loadDwqData } from "./dwq-data";
import { loadTraining, saveTraining } from "./dwq-state";
import { computeTargets, hasTargets, inputsOf, readTarget } from "./dwq-targets";
import { checkAffine, checkGroups, openSource, quantizableLayers } from "./source-model";
import { checkWork, closeWork, fingerprint, openWork, type WorkSettings, weightsMark } from "./work-folder";

export interface DwqSettings {
  bits: number;
  groupSize: number;
  numSamples: number;
  maxSeqLength: number;
  seed: number;
  learningRate: number;
  batchSize: number;
  dataPath: string;
  gradCheckpoint: boolean;
  /** Folder of the original's predictions; without one it stays in memory. */
  targetDir?: string;
  /** Compute those and end. */
  targetsOnly: boolean;
  /** Go on with the work that was begun on the same target. */
  resume: boolean;
}

export interface DwqHooks {
  /** As each part of the work begins. */
  onStage?: (line: string) => void;
  /** Of a download of data, in bytes. */
  onDownload?: (done: number, total: number) => void;
  /** Batches of the original's predictions. */
  onTarget?: (done: number, total: number) => void;
  /** With the model's trainable parameters as a line. */
  onModel?: (line: string) => void;
  onEvent?: (event: DwqEvent) => void;
  onStep?: (done: number, total: number, loss: number) => void;
  onValidationBatch?: (done: number, total: number) => void;
  onSave?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

export interface DwqResult {
  parameters: number;
  bits_per_weight: number;
  quantization: QuantizationConfig;
  progress: DwqProgress;
  /** The data to measure on. */
  calibration: Calibration;
}

type Group = mx.distributed.Group;

interface Folders {
  path: string;
  repo?: string;
  /** The model that is to learn, quantized already; the original, quantized here, unless given. */
  quantized?: string;
}

/**
 * Trains a quantized model by its original and saves it to `target`. Everything that can be wrong is looked at before the
 * work. Returns null where only the original's predictions were asked for.
 * @throws UserError for models, data or settings that DWQ cannot take, and where the signal ends the work
 */
export async function quantizeByDwq(
  source: Folders,
  target: string,
  settings: DwqSettings,
  hooks: DwqHooks = {},
): Promise<DwqResult | null> {
  const { targetDir, targetsOnly, resume } = settings;
  checkSettings(settings);
  const group = quantizingGroup(settings) && trainingGroup(settings.batchSize);
  if (!targetsOnly) await checkTarget(target);
  hooks.onStage?.("Loading");
  const data = await readData(source, settings, hooks);
  const work = await workSettings(source, settings, data);
  const { batches, counts } = batchesOf(data, settings);
  // The first rank saves, and it may have begun before another one looks.
  if (!targetsOnly && isLead()) await checkWork(target, work, { resume });

  if (targetDir !== undefined) await provideTargets(source, targetDir, { batches, counts, work, group, hooks });
  if (targetsOnly) return null;

  const folder = isLead() ? await openWork(target, work) : null;
  const student = await openStudent(source, settings);
  const { model, config } = student;
  let teacher: LanguageModel | null = null;
  let isSaving = false;
  try {
    if (targetDir === undefined) teacher = (await openWeights(source.path, await readConfig(source.path))).model;
    const options = { batches, counts, folder, teacher, group, hooks };
    const progress = await distill(model, settings, options);
    teacher?.dispose();
    teacher = null;
    const quantization = config.quantization as QuantizationConfig;
    const facts = { parameters: parameterCount(model), bits_per_weight: bitsPerWeight(model) };
    if (isLead()) {
      isSaving = true;
      await saveModel(target, model, config, { source: student.folder, repo: source.repo, onProgress: hooks.onSave });
      await closeWork(target);
    }
    return { ...facts, quantization, progress, calibration: { rows: [], heldOut: heldOutRows(data), first: [] } };
  } finally {
    teacher?.dispose();
    if (!isSaving) model.dispose();
  }
}

function checkSettings({ bits, groupSize, targetDir, targetsOnly, learningRate }: DwqSettings): void {
  checkAffine(bits, groupSize, { bits: "--bits", groupSize: "--group-size" });
  if (!(learningRate > 0)) {
    throw new UserError(`--learning-rate must be more than 0, not ${learningRate}`, { code: ExitCode.usage });
  }
  if (!targetsOnly || targetDir !== undefined) return;
  throw new UserError("--targets-only needs a folder to save them to", {
    code: ExitCode.usage,
    hint: "Name one: --target-dir FOLDER",
  });
}

/** The samples, after a look at the models that are to learn from them: their weights are not read yet. */
async function readData(source: Folders, settings: DwqSettings, { onDownload, signal }: DwqHooks): Promise<DwqData> {
  const config = await readConfig(source.path);
  const tokenizer = await loadTokenizer(source.path, await tokenizerOptions(config));
  const { model: original } = await openWeights(source.path, config);
  const { vocabSize } = original;
  original.dispose();
  const { model: student } = await openStudent(source, settings);
  const known = student.vocabSize;
  student.dispose();
  if (known !== vocabSize) {
    throw new UserError(`${source.quantized} has ${known} tokens, and ${source.path} ${vocabSize}`, {
      code: ExitCode.usage,
      hint: "--quantized-model must be made from --model.",
    });
  }
  return loadDwqData(tokenizer, { ...settings, vocabSize, onDownload, signal });
}

interface Student {
  model: LanguageModel;
  config: ModelConfig;
  folder: string;
}

/** The model that learns, its weights unread. @throws UserError where it is not quantized or cannot learn */
async function openStudent({ path, quantized }: Folders, { bits, groupSize }: DwqSettings): Promise<Student> {
  const folder = quantized ?? path;
  const opened =
    quantized === undefined ? await openSource(path) : await openWeights(quantized, await readConfig(quantized));
  const { model } = opened;
  let { config } = opened;
  try {
    if (quantized === undefined) {
      const layers = quantizableLayers(model);
      if (layers.every(([, { weight }]) => weight.dim(-1) % groupSize !== 0))
        checkGroups(layers, groupSize, "--group-size");
      const predicate = await architecturePredicate(config);
      config = quantizeModel(model, config, { groupSize, bits, predicate });
    } else if (config.quantization === undefined) {
      throw new UserError(`${quantized} is not quantized`, {
        code: ExitCode.usage,
        hint: "Leave out --quantized-model: --model is then quantized with --bits and --group-size.",
      });
    }
    unfreezeScales(model);
    return { model, config, folder };
  } catch (error) {
    model.dispose();
    throw error;
  }
}

type Batches = DwqOptions["batches"];

function batchesOf(data: DwqData, { batchSize, maxSeqLength, seed }: DwqSettings) {
  const batches = ({ split }: { split: keyof DwqData }) =>
    iterateBatches(data[split], { batchSize, maxSeqLength, random: new NumpyRandom(seed) });
  const counts = {
    train: Math.floor(data.train.length / batchSize),
    valid: Math.floor(data.valid.length / batchSize),
  };
  const both: Batches = { train: () => batches({ split: "train" }), valid: () => batches({ split: "valid" }) };
  return { batches: both, counts };
}

/** Makes the original's predictions where they are not there yet. It is in memory only meanwhile. */
async function provideTargets(
  { path }: Folders,
  folder: string,
  {
    batches,
    counts,
    work,
    group,
    hooks,
  }: {
    batches: Batches;
    counts: { train: number; valid: number };
    work: WorkSettings;
    group: Group | null;
    hooks: DwqHooks;
  },
): Promise<void> {
  const facts = {
    model: work.model,
    data: work["training data"],
    "--batch-size": work["--batch-size"],
    "--seed": work["--seed"],
  };
  if (await hasTargets(folder, counts, facts)) return;
  if (group) {
    throw new UserError(`${folder} does not have the targets of all batches, and ranks do not make them`, {
      code: ExitCode.usage,
      hint: "Make them first, without mlxlm launch: --targets-only. Or leave out --target-dir: each rank then has the original.",
    });
  }
  hooks.onStage?.(`Computing targets into ${folder}`);
  const { model } = await openWeights(path, await readConfig(path));
  try {
    await computeTargets(model, folder, { facts, batches, counts, onBatch: hooks.onTarget, signal: hooks.signal });
  } finally {
    model.dispose();
    mx.clearCache();
  }
}

async function distill(
  model: LanguageModel,
  { learningRate, gradCheckpoint, targetDir }: DwqSettings,
  options: {
    batches: Batches;
    counts: { train: number; valid: number };
    /** Where the work is saved; null on ranks that do not. */
    folder: string | null;
    teacher: LanguageModel | null;
    group: Group | null;
    hooks: DwqHooks;
  },
): Promise<DwqProgress> {
  const { batches, counts, folder, teacher, group, hooks } = options;
  // Layer by layer: of what a student was quantized from, little is in memory at once.
  for (const [, tensor] of model.namedParameters()) mx.eval(tensor);
  mx.clearCache();
  hooks.onModel?.(trainableLine(model));
  const restoreLimit = withWiredLimit();
  const undo = gradCheckpoint ? checkpointBlocks(model.layers) : () => {};
  const optimizer = new AdamW(learningRate, { weightDecay: 0, biasCorrection: true });
  let distillation: Distillation | null = null;
  try {
    const saved = folder === null ? null : await loadTraining(folder, trainableParameters(model), optimizer);
    distillation = new Distillation(model, optimizer, {
      batches,
      target: async (batch, index, split) => {
        if (targetDir !== undefined) {
          return ownTargets(await readTarget(targetDir, split, index, batch, model.vocabSize), group);
        }
        const logits = mx.scope(() => teacher!.forward(inputsOf(ownRows(batch, group))));
        mx.eval(logits);
        return { logits, indices: null };
      },
      dtype: dwqDtype(model),
      group,
      save: folder === null ? undefined : (...state) => saveTraining(folder, ...state, optimizer),
      resume: saved ?? undefined,
      onEvent: hooks.onEvent,
      onValidationBatch: (done) => hooks.onValidationBatch?.(done, counts.valid),
      onStep: (done, loss) => hooks.onStep?.(done, counts.train, loss),
      signal: hooks.signal,
    });
    return await distillation.run();
  } finally {
    distillation?.dispose();
    optimizer.dispose();
    undo();
    restoreLimit();
  }
}

/** Of the targets of a batch those of this rank's rows. */
function ownTargets(whole: Required<{ logits: mx.Tensor; indices: mx.Tensor }>, group: Group | null) {
  if (!group) return whole;
  const own = mx.scope(() => {
    const rows = (x: mx.Tensor) => mx.contiguous(x.at(mx.slice(group.rank, null, group.size)));
    return { logits: rows(whole.logits), indices: rows(whole.indices) };
  });
  mx.eval(own);
  whole.logits.dispose();
  whole.indices.dispose();
  return own;
}

/** The longer half of the validation samples, cut to one length: the closing report takes rows as they are. */
function heldOutRows({ valid }: DwqData): number[][] {
  const middle = valid.length >> 1;
  const { length } = valid.at(middle).tokens;
  return Array.from({ length: valid.length - middle }, (_, i) => [...valid.at(middle + i).tokens.subarray(0, length)]);
}

/** What must be the same for a training to go on. */
async function workSettings(
  { path, quantized }: Folders,
  { bits, groupSize, maxSeqLength, seed, learningRate, batchSize, targetDir }: DwqSettings,
  { train, valid }: DwqData,
): Promise<WorkSettings> {
  const rows = [train, valid].flatMap((set) => Array.from({ length: set.length }, (_, i) => [...set.at(i).tokens]));
  return {
    method: "dwq",
    model: await weightsMark(path),
    "quantized model": quantized === undefined ? null : await weightsMark(quantized),
    "training data": fingerprint(rows),
    ...(quantized === undefined ? { "--bits": bits, "--group-size": groupSize } : {}),
    ...{ "--max-seq-length": maxSeqLength, "--seed": seed, "--batch-size": batchSize },
    ...{ "--learning-rate": learningRate, "--target-dir": targetDir ?? null },
  };
}
