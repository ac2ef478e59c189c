/** mlx-lm's benchmark: how fast a model takes a random prompt and generates from it, greedily and to the full length. */
import { setTimeout as sleep } from "node:timers/promises";
import { answer } from "../generate/answer";
import { batchGenerate } from "../generate/batch";
import { checkCacheRoom } from "../generate/cache-room";
import { LoneStepper } from "../generate/lone-stepper";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import type { Tokenizer } from "../text/tokenizer";
import type { Speed, Trial } from "./speed";

export interface TrialOptions {
  promptTokens: number;
  generationTokens: number;
  prefillStepSize?: number;
  signal: AbortSignal;
}

export interface BenchmarkOptions extends TrialOptions {
  /** How many prompts side by side. */
  batchSize: number;
  numTrials: number;
  /** Seconds between two trials. */
  delay: number;
  /** Bytes of memory that may be taken: what there is, unless given. */
  available?: number;
}

/** A model, and the folder that it comes from. */
export interface Opened {
  model: LanguageModel;
  tokenizer: Tokenizer;
  folder: string;
}

/** The same benchmark by another program. */
export interface Rival {
  version: string;
  /** @returns null where it was interrupted */
  runTrial(folder: string, options: BenchmarkOptions): Promise<Trial | null>;
}

export interface BenchmarkHooks {
  onWarmup(): void;
  /** The first trial begins. */
  onStart(facts: Facts): void;
  onTrial(trial: Trial, count: number): void;
  onRivalTrial(trial: Trial, count: number): void;
}

/** Field names are mlx-lm's. */
export interface Facts {
  prompt_tokens: number;
  generation_tokens: number;
  batch_size: number;
}

export interface BenchmarkResult extends Facts {
  /** Folder of the model. */
  model: string;
  trials: Trial[];
  averages: Speed;
  against?: { version: string; trials: Trial[]; averages: Speed };
  /** How many times theirs ours is. */
  ratio?: Speed;
}

/**
 * Warms a model up and measures some trials. With a rival, in turn: both sides load the model anew for each trial, and
 * neither holds memory while the other runs.
 * @param open loads the model; from a folder, once that is known
 * @returns null where it was interrupted
 */
export async function benchmark(
  open: (folder?: string) => Promise<Opened>,
  rival: Rival | null,
  options: BenchmarkOptions,
  hooks: BenchmarkHooks,
): Promise<BenchmarkResult | null> {
  const { promptTokens, generationTokens, batchSize, numTrials, signal } = options;
  const facts = { prompt_tokens: promptTokens, generation_tokens: generationTokens, batch_size: batchSize };
  const wait = () => sleep(options.delay * 1000, undefined, { signal }).catch(() => {});
  const ours: Trial[] = [];
  const theirs: Trial[] = [];
  let prompts: number[][] | null = null;
  let folder: string | undefined;

  /** Loads the model, warms it up, and measures some trials. */
  const measure = async (count: number) => {
    const { model, tokenizer, folder: path } = await open(folder);
    folder = path;
    try {
      checkCacheRoom(model, promptTokens + generationTokens, { sequences: batchSize, available: options.available });
      prompts ??= randomPrompts(model.vocabSize, batchSize, promptTokens);
      if (ours.length === 0) hooks.onWarmup();
      if (!(await runTrial(model, tokenizer, prompts, options))) return;
      if (ours.length === 0) hooks.onStart(facts);
      for (let n = 0; n < count; n++) {
        await wait();
        const trial = await runTrial(model, tokenizer, prompts, options);
        if (!trial) return;
        hooks.onTrial(trial, ours.push(trial));
      }
    } finally {
      model.dispose();
      mx.clearCache();
    }
  };

  if (!rival) await measure(numTrials);
  while (rival && ours.length < numTrials && !signal.aborted) {
    await measure(1);
    await wait();
    const trial = signal.aborted ? null : await rival.runTrial(folder!, options);
    if (!trial) break;
    hooks.onRivalTrial(trial, theirs.push(trial));
  }
  if (signal.aborted) return null;
  const result = { model: folder!, ...facts, trials: ours, averages: averages(ours) };
  if (!rival) return result;
  const against = { version: rival.version, trials: theirs, averages: averages(theirs) };
  return { ...result, against, ratio: ratios(result.averages, against.averages) };
}

/** So many prompts of random token ids; for one seed those of the reference, if it has drawn as often. */
function randomPrompts(vocabSize: number, count: number, length: number): number[][] {
  return mx.scope(() => mx.random.randint(0, vocabSize, { shape: [count, length] }).toList() as number[][]);
}

/**
 * One timed run, of several prompts side by side; nothing ends it early but the signal.
 * @returns null where it was interrupted
 */
async function runTrial(
  model: LanguageModel,
  tokenizer: Tokenizer,
  prompts: readonly (readonly number[])[],
  options: TrialOptions,
): Promise<Trial | null> {
  const began = performance.now();
  const speed =
    prompts.length === 1 ? await single(model, tokenizer, prompts[0]!, options) : await batch(model, prompts, options);
  if (!speed || options.signal.aborted) return null;
  const { prompt_tps, generation_tps, peak_memory } = speed;
  return { prompt_tps, generation_tps, peak_memory, total_time: (performance.now() - began) / 1000 };
}

async function single(
  model: LanguageModel,
  tokenizer: Tokenizer,
  prompt: readonly number[],
  { generationTokens, prefillStepSize, signal }: TrialOptions,
): Promise<Speed | null> {
  const by = { stepper: new LoneStepper(model, { prefillStepSize }), tokenizer };
  const request = { prompt, maxTokens: generationTokens, stopTokens: new Set<number>(), signal };
  for await (const part of answer(request, by)) if (part.type === "end") return part;
  return null;
}

function batch(
  model: LanguageModel,
  prompts: readonly (readonly number[])[],
  { generationTokens, prefillStepSize, signal }: TrialOptions,
): Promise<Speed> {
  return batchGenerate(model, prompts, { maxTokens: generationTokens, prefillStepSize, signal });
}

/** The means over trials. */
function averages(trials: readonly Speed[]): Speed {
  const mean = (key: keyof Speed) => trials.reduce((sum, trial) => sum + trial[key], 0) / trials.length;
  return {
    prompt_tps: mean("prompt_tps"),
    generation_tps: mean("generation_tps"),
    peak_memory: mean("peak_memory"),
  };
}

function ratios(ours: Speed, theirs: Speed): Speed {
  return {
    prompt_tps: ours.prompt_tps / theirs.prompt_tps,
    generation_tps: ours.generation_tps / theirs.generation_tps,
    peak_memory: ours.peak_memory / theirs.peak_memory,
  };
}
