/** mlx-lm's benchmark: how fast a model takes a random prompt and generates from it, greedily and to the full length. */
import { batchGenerate } from "../generate/batch";
import { streamGenerate } from "../generate/stream";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import type { Tokenizer } from "../text/tokenizer";

/** Field names are mlx-lm's. */
export interface Speed {
  /** Tokens a second. */
  prompt_tps: number;
  generation_tps: number;
  /** GB (10⁹ bytes), the most since the process began. */
  peak_memory: number;
}

export interface Trial extends Speed {
  /** Seconds. */
  total_time: number;
}

export interface BenchmarkOptions {
  promptTokens: number;
  generationTokens: number;
  prefillStepSize: number;
  signal: AbortSignal;
}

/** So many prompts of random token ids; for one seed those of the reference, if it has drawn as often. */
export function randomPrompts(vocabSize: number, count: number, length: number): number[][] {
  return mx.scope(() => mx.random.randint(0, vocabSize, { shape: [count, length] }).toList() as number[][]);
}

/**
 * One timed run, of several prompts side by side; nothing ends it early but the signal.
 * @returns null where it was interrupted
 */
export async function runTrial(
  model: LanguageModel,
  tokenizer: Tokenizer,
  prompts: readonly (readonly number[])[],
  options: BenchmarkOptions,
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
  { generationTokens, prefillStepSize, signal }: BenchmarkOptions,
): Promise<Speed | null> {
  tokenizer.eosTokenIds.clear();
  let last: Speed | null = null;
  const options = { maxTokens: generationTokens, prefillStepSize, signal };
  for await (const response of streamGenerate(model, tokenizer, prompt, options)) last = response;
  return last;
}

function batch(
  model: LanguageModel,
  prompts: readonly (readonly number[])[],
  { generationTokens, prefillStepSize, signal }: BenchmarkOptions,
): Promise<Speed> {
  return batchGenerate(model, prompts, { maxTokens: generationTokens, prefillStepSize, signal });
}

/** The means over trials. */
export function averages(trials: readonly Speed[]): Speed {
  const mean = (key: keyof Speed) => trials.reduce((sum, trial) => sum + trial[key], 0) / trials.length;
  return {
    prompt_tps: mean("prompt_tps"),
    generation_tps: mean("generation_tps"),
    peak_memory: mean("peak_memory"),
  };
}
