/** Fine-tuning from settings to files: model, adapters, data, training, test. */
import { eosTokenIds, readConfig } from "../convert/config";
import { openWeights } from "../convert/load";
import { ExitCode, UserError } from "../errors";
import { breathe } from "../macrotask";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { loadTokenizer } from "../text/tokenizer";
import { applyAdapters, resumeWeights, writeAdapterConfig } from "./adapter-files";
import { type BatchesOptions, type Dataset, type Datasets, iterateBatches, loadDatasets } from "./data";
import { linearToLora, trainableLine, unfreezeBlocks } from "./linear-to-lora";
import { evaluateLoss } from "./loss";
import { makeOptimizer } from "./optimizer";
import type { Settings } from "./settings";
import { type TrainingEvent, train } from "./trainer";
import { readTrainingState } from "./training-state";

export interface FineTuneHooks {
  /** Called with mlx-lm's words as each part of the work begins. */
  onStage?: (line: string) => void;
  /** Called with the model's trainable parameters as a line, before the first step. */
  onModel?: (line: string) => void;
  onEvent?: (event: TrainingEvent) => void;
  onStep?: (iteration: number) => void;
  /** Called before the first batch of a validation or a test, and after each. */
  onLossBatch?: (done: number, total: number) => void;
  /** Called with the length of a sample that is longer than the settings allow. */
  onCut?: (length: number) => void;
  signal?: AbortSignal;
}

export interface FineTuneEnd {
  /** Steps done in all; null where nothing was trained. */
  iteration: number | null;
  test: { loss: number; perplexity: number } | null;
  interrupted: boolean;
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
  hooks.onStage?.("Loading pretrained model");
  const config = await readConfig(folder);
  const tokenizer = await loadTokenizer(folder, { eosTokenIds: eosTokenIds(config) });
  const { model } = await openWeights(folder, config);
  try {
    mx.eval(model.parameters());
    hooks.onStage?.("Loading datasets");
    const data = await loadDatasets(settings, tokenizer);
    if (settings.train && data.valid.length === 0) {
      hooks.onStage?.("Warning: Validation set not found or empty. Training will proceed without validation.");
    }
    const end: FineTuneEnd = { iteration: null, test: null, interrupted: false };
    if (settings.train) {
      hooks.onStage?.("Training");
      const trained = await trainModel(model, settings, data, { resume, ...hooks });
      Object.assign(end, trained);
    } else if (settings.adapter_path !== "") await applyAdapters(model, settings.adapter_path);
    if (settings.test && !end.interrupted) {
      hooks.onStage?.("Testing");
      const loss = await testLoss(model, settings, data.test, hooks);
      if (loss === null) end.interrupted = true;
      else end.test = { loss, perplexity: Math.exp(loss) };
    }
    return end;
  } finally {
    model.dispose();
  }
}

/** What a training that goes on must have in common with the one that ended. */
function resumeSettings(settings: Settings, trainLength: number, validLength: number): Record<string, unknown> {
  const { model, data, hf_dataset, fine_tune_type, num_layers, lora_parameters, optimizer, optimizer_config } =
    settings;
  const { seed, batch_size, max_seq_length, mask_prompt, grad_accumulation_steps, val_batches } = settings;
  return {
    ...{ model, data, hf_dataset, fine_tune_type, num_layers, lora_parameters, optimizer, optimizer_config },
    ...{ seed, batch_size, max_seq_length, mask_prompt, grad_accumulation_steps, val_batches },
    "number of training samples": trainLength,
    "number of validation samples": validLength,
  };
}

async function trainModel(
  model: LanguageModel,
  settings: Settings,
  data: Datasets,
  { resume, onModel, onEvent, onStep, onLossBatch, onCut, signal }: FineTuneHooks & { resume: boolean },
): Promise<{ iteration: number; interrupted: boolean }> {
  const { adapter_path: folder, fine_tune_type: type, num_layers: count, lora_parameters: parameters } = settings;
  const fixed = resumeSettings(settings, data.train.length, data.valid.length);
  mx.random.seed(settings.seed);
  model.freeze();
  if (count > model.layers.length) {
    throw new UserError(`${count} layers are to be trained, but the model has ${model.layers.length}`, {
      code: ExitCode.usage,
      hint: `Ask for fewer: --num-layers ${model.layers.length}; -1 takes all.`,
    });
  }
  if (type === "full") unfreezeBlocks(model, count);
  else linearToLora(model, count, { ...parameters!, dora: type === "dora" });
  if (settings.resume_adapter_file !== null) await resumeWeights(model, settings.resume_adapter_file);
  onModel?.(trainableLine(model));
  const state = resume ? await readTrainingState(folder, fixed) : undefined;
  await writeAdapterConfig(folder, settings);

  const optimizer = makeOptimizer(settings);
  const { valid } = data;
  const total = batchCount(settings, valid, settings.val_batches);
  let done = 0;
  try {
    return await train(model, optimizer, {
      folder,
      iterations: settings.iters,
      batches: iterateBatches(data.train, { ...batchOptions(settings, onCut), loop: true, seed: settings.seed }),
      validation:
        valid.length === 0
          ? undefined
          : () => {
              done = 0;
              onLossBatch?.(done, total);
              return firstOf(iterateBatches(valid, batchOptions(settings, onCut)), settings.val_batches);
            },
      stepsPerReport: settings.steps_per_report,
      stepsPerEval: settings.steps_per_eval,
      stepsPerSave: settings.save_every,
      gradientAccumulation: settings.grad_accumulation_steps,
      gradientCheckpoint: settings.grad_checkpoint,
      clearCacheThreshold: settings.clear_cache_threshold,
      onEvent,
      onStep,
      onValidationBatch: () => onLossBatch?.(++done, total),
      signal,
      settings: fixed,
      resume: state,
    });
  } finally {
    optimizer.dispose();
  }
}

const batchOptions = (
  { batch_size: batchSize, max_seq_length: maxSeqLength }: Settings,
  onCut: FineTuneHooks["onCut"],
): BatchesOptions => ({ batchSize, maxSeqLength, onCut });

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
  { onLossBatch, onCut, signal }: FineTuneHooks,
): Promise<number | null> {
  const total = batchCount(settings, data, settings.test_batches);
  let done = 0;
  onLossBatch?.(done, total);
  const stopped = new Error("the signal ended the test");
  // After a training its generator of orders goes on.
  const seed = settings.train ? undefined : settings.seed;
  const batches = iterateBatches(data, { ...batchOptions(settings, onCut), seed });
  try {
    return await evaluateLoss(model, firstOf(batches, settings.test_batches), async () => {
      onLossBatch?.(++done, total);
      await breathe();
      if (signal?.aborted) throw stopped;
    });
  } catch (error) {
    if (error === stopped) return null;
    throw error;
  }
}
