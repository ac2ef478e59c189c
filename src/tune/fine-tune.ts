/** Fine-tuning from settings to files: model, adapters, data, training, test. */

import { writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { removeUnfinished, replaceFile } from "../atomic-file";
import { tokenizerOptions } from "../convert/config";
import { openWeights } from "../convert/load";
import { readConfig } from "../convert/source";
import { counted } from "../counted";
import { breathe } from "../macrotask";
import { NumpyRandom } from "../mersenne";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import type { Optimizer } from "../optim";
import { loadTokenizer } from "../text/tokenizer";
import { anyAborted, trainingGroup } from "./across-ranks";
import { applyAdapters, resumeWeights, writeAdapterConfig } from "./adapter-files";
import { curveSvg, type History } from "./curve";
import {
  type BatchesOptions,
  type Dataset,
  type DatasetFacts,
  type Datasets,
  datasetFacts,
  iterateBatches,
  iteratePacked,
  loadDatasets,
  type PackingFacts,
  packingFacts,
  splitNames,
} from "./data";
import { checkAdapterRoom, linearToLora, trainableLine, unfreezeBlocks } from "./linear-to-lora";
import { evaluateLoss } from "./loss";
import { makeOptimizer } from "./optimizer";
import { checkPacking } from "./packing";
import { logPaths, RunLog } from "./run-log";
import type { Settings } from "./settings";
import { type StepFigures, type TrainingEnd, type TrainingEvent, train } from "./trainer";
import { readTrainingState, statePath } from "./training-state";

export interface FineTuneHooks {
  /** Called with mlx-lm's words as each part of the work begins. */
  onStage?: (line: string) => void;
  /** Called with what a user should not miss. */
  onWarning?: (line: string) => void;
  /** Called as a dataset is fetched, in bytes, and as its records become tokens. */
  onDownload?: (done: number, total: number) => void;
  onEncode?: (done: number, total: number) => void;
  /** Called once for each set that is used, before the first step. */
  onData?: (event: DataEvent) => void;
  /** Called once where samples are packed, before the first step. */
  onPacking?: (event: PackingEvent) => void;
  /** Called before the first step, with the settings as they fit the model and its trainable parameters as a line. */
  onModel?: (settings: Settings, trainable: string) => void;
  onEvent?: (event: TrainingEvent) => void;
  onStep?: (iteration: number, figures: StepFigures) => void;
  /** Called before the first batch of a validation or a test, and after each. */
  onLossBatch?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

export type DataEvent = { type: "data"; split: string } & DatasetFacts;

export type PackingEvent = { type: "packing" } & PackingFacts;

export interface FineTuneEnd {
  /** Steps done in all; null where nothing was trained. */
  iteration: number | null;
  test: { loss: number; perplexity: number } | null;
  interrupted: boolean;
  /** The losses that were reported. */
  history: History;
  /** The picture of them, where there is one. */
  curve: string | null;
}

/**
 * Trains and tests the model in `folder` as the settings say.
 * @param resume go on with the training whose state lies in the adapter's folder
 * @throws UserError for whatever keeps it from running
 */
export async function fineTune(
  folder: string,
  settings: Settings,
  { resume = false, ...hooks }: FineTuneHooks & { resume?: boolean } = {},
): Promise<FineTuneEnd> {
  // What the settings ask for is looked at before anything large is.
  const group = trainingGroup(settings.batch_size);
  const optimizer = settings.train ? makeOptimizer(settings) : null;
  const logs = logPaths(settings);
  hooks.onStage?.("Loading pretrained model");
  const config = await readConfig(folder);
  const tokenizer = await loadTokenizer(folder, await tokenizerOptions(config));
  const { model } = await openWeights(folder, config);
  try {
    if (settings.train && settings.packing) checkPacking(model, settings.model);
    hooks.onStage?.("Loading datasets");
    const data = await loadDatasets(settings, tokenizer, hooks);
    for (const split of splitNames.filter((name) => data[name].length > 0)) {
      hooks.onData?.({ type: "data", split, ...datasetFacts(data[split], settings.max_seq_length) });
    }
    if (settings.train && settings.packing) {
      hooks.onPacking?.({ type: "packing", ...packingFacts(data.train, batchSizes(settings)) });
    }
    mx.eval(model.parameters());
    if (settings.train && data.valid.length === 0) {
      hooks.onWarning?.("there is no validation set, or it is empty: training goes on without validation");
    }
    // As NumPy's global generator, which all sets draw from.
    const random = new NumpyRandom(settings.seed);
    const end: FineTuneEnd = {
      iteration: null,
      test: null,
      interrupted: false,
      history: { train: [], val: [] },
      curve: null,
    };
    const blocks = model.layers.length;
    if (settings.train && settings.num_layers > blocks) {
      // mlx-lm refuses, its own default of 16 too.
      hooks.onWarning?.(`the model has ${blocks} layers, fewer than ${settings.num_layers}: all of them are trained.`);
      settings = { ...settings, num_layers: blocks };
    }
    if (optimizer) {
      hooks.onStage?.("Training");
      const trained = await trainModel(model, optimizer, settings, data, random, { resume, logs, group, ...hooks });
      Object.assign(end, trained, { curve: isLead(group) ? await drawCurve(settings, trained.history) : null });
    } else if (settings.adapter_path !== "") await applyAdapters(model, settings.adapter_path);
    if (settings.test && !end.interrupted) {
      hooks.onStage?.("Testing");
      const loss = await testLoss(model, settings, data.test, random, { group, ...hooks });
      if (loss === null) end.interrupted = true;
      else end.test = { loss, perplexity: Math.exp(loss) };
    }
    return end;
  } finally {
    optimizer?.dispose();
    model.dispose();
  }
}

interface InGroup {
  /** The processes that train together, each with some rows of every batch. */
  group: mx.distributed.Group | null;
}

/** Whether this process writes what all of them have. */
const isLead = (group: mx.distributed.Group | null) => (group?.rank ?? 0) === 0;

/** Draws the losses into the adapter's folder. Returns the picture's path; null where there were no losses. */
async function drawCurve({ adapter_path, model }: Settings, history: History): Promise<string | null> {
  const picture = curveSvg(history, `Loss of ${model}`);
  if (picture === null) return null;
  const path = join(adapter_path, "curve.svg");
  await replaceFile(path, (temporary) => writeFile(temporary, picture));
  return path;
}

/** What a training that goes on must have in common with the one that ended. */
function resumeSettings(settings: Settings, trainLength: number, validLength: number): Record<string, unknown> {
  const { model, data, hf_dataset, fine_tune_type, num_layers, lora_parameters, optimizer, optimizer_config } =
    settings;
  const { seed, batch_size, max_seq_length, mask_prompt, grad_accumulation_steps, val_batches } = settings;
  const { train_embeddings, packing } = settings;
  return {
    ...{ model, data, hf_dataset, fine_tune_type, num_layers, lora_parameters, optimizer, optimizer_config },
    ...{ seed, batch_size, max_seq_length, mask_prompt, grad_accumulation_steps, val_batches },
    ...{ train_embeddings, packing },
    "number of training samples": trainLength,
    "number of validation samples": validLength,
  };
}

async function trainModel(
  model: LanguageModel,
  optimizer: Optimizer,
  settings: Settings,
  data: Datasets,
  random: NumpyRandom,
  { resume, logs, group, ...hooks }: FineTuneHooks & InGroup & { resume: boolean; logs: readonly string[] },
): Promise<TrainingEnd> {
  const { adapter_path: folder, fine_tune_type: type, num_layers: count, lora_parameters: parameters } = settings;
  const fixed = resumeSettings(settings, data.train.length, data.valid.length);
  mx.random.seed(settings.seed);
  model.freeze();
  if (type === "full") unfreezeBlocks(model, count, { embeddings: settings.train_embeddings === true });
  else {
    linearToLora(model, count, { ...parameters!, dora: type === "dora" });
    checkAdapterRoom(model, parameters!.rank);
  }
  if (settings.resume_adapter_file !== null) await resumeWeights(model, settings.resume_adapter_file);
  const state = resume ? await readTrainingState(folder, fixed) : undefined;
  const before = state?.progress.iteration ?? 0;
  if (state && before >= settings.iters) {
    hooks.onWarning?.(`all ${counted(before, "iteration")} are done already; to go on: --resume --iters ${2 * before}`);
  }
  for (const path of logs) hooks.onStage?.(`Figures go to ${path}, as lines of JSON: nothing is sent from here`);
  hooks.onModel?.(settings, trainableLine(model));
  if (isLead(group)) {
    for (const each of [folder, dirname(statePath(folder))]) await removeUnfinished(each);
    await writeAdapterConfig(folder, settings);
  }

  const { onLossBatch, onStep, signal } = hooks;
  const { valid } = data;
  const total = batchCount(settings, valid, settings.val_batches);
  let done = 0;
  const log = new RunLog(isLead(group) ? logs : [], settings, { iteration: before });
  try {
    return await train(model, optimizer, {
      folder,
      iterations: settings.iters,
      batches: settings.packing
        ? iteratePacked(data.train, batchOptions(settings, random))
        : iterateBatches(data.train, { ...batchOptions(settings, random), loop: true }),
      validation:
        valid.length === 0
          ? undefined
          : () => {
              done = 0;
              onLossBatch?.(done, total);
              return firstOf(iterateBatches(valid, batchOptions(settings, random)), settings.val_batches);
            },
      stepsPerReport: settings.steps_per_report,
      stepsPerEval: settings.steps_per_eval,
      stepsPerSave: settings.save_every,
      gradientAccumulation: settings.grad_accumulation_steps,
      gradientCheckpoint: settings.grad_checkpoint,
      clearCacheThreshold: settings.clear_cache_threshold,
      onEvent(event) {
        log.add(event);
        hooks.onEvent?.(event);
      },
      onStep,
      onValidationBatch: () => onLossBatch?.(++done, total),
      signal,
      group,
      settings: fixed,
      resume: state,
    });
  } finally {
    const problem = await log.end();
    if (problem !== null) hooks.onWarning?.(`figures are missing in a log: ${(problem as Error).message}`);
  }
}

const batchSizes = ({ batch_size: batchSize, max_seq_length: maxSeqLength }: Settings) => ({ batchSize, maxSeqLength });

const batchOptions = (settings: Settings, random: NumpyRandom): BatchesOptions => ({
  ...batchSizes(settings),
  random,
});

/** How many whole batches there are, at most `limit` unless that is -1. */
function batchCount({ batch_size }: Settings, { length }: Dataset, limit: number): number {
  const all = Math.floor(length / batch_size);
  return limit === -1 ? all : Math.min(all, limit);
}

/** The first `count` of them, all where it is -1. */
function* firstOf<T>(items: Iterator<T>, count: number): Generator<T> {
  for (let i = 0; i !== count; i++) {
    const { value, done } = items.next();
    if (done) return;
    yield value;
  }
}

/** The mean loss on the test set; null where the signal ended it. */
async function testLoss(
  model: LanguageModel,
  settings: Settings,
  data: Dataset,
  random: NumpyRandom,
  { onLossBatch, signal, group }: FineTuneHooks & InGroup,
): Promise<number | null> {
  const total = batchCount(settings, data, settings.test_batches);
  let done = 0;
  onLossBatch?.(done, total);
  const stopped = new Error("the signal ended the test");
  const batches = iterateBatches(data, batchOptions(settings, random));
  try {
    return await evaluateLoss(
      model,
      firstOf(batches, settings.test_batches),
      async () => {
        onLossBatch?.(++done, total);
        await breathe();
        if (anyAborted(signal, group)) throw stopped;
      },
      group,
    );
  } catch (error) {
    if (error === stopped) return null;
    throw error;
  }
}
