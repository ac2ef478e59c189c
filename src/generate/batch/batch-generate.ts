/** Many prompts at once, to the end of all answers. */
import { breathe } from "../../macrotask";
import * as mx from "../../mlx";
import type { Cache, LanguageModel } from "../../models";
import type { Sampler } from "../../sample";
import { BatchGenerator, type BatchGeneratorOptions } from "./generator";

export interface BatchGenerateOptions extends BatchGeneratorOptions {
  /** How many tokens at most; a list has a number for each prompt. */
  maxTokens?: number | readonly number[];
  sampler?: Sampler;
  /** Tokens that end an answer; they are no part of it. */
  stopTokens?: Iterable<number>;
  /** What the model has read before each prompt; copied. */
  caches?: readonly (readonly Cache[])[];
  /** Called when so many of all answers are done. */
  onFinish?: (done: number, total: number) => void;
  /** Ends the work between two steps. */
  signal?: AbortSignal;
}

/** Field names are mlx-lm's. */
export interface BatchResponse {
  /** The answers' tokens, in the order of the prompts. */
  tokens: number[][];
  /** Tokens a second while prompts were read. */
  prompt_tps: number;
  /** Tokens a second of the rest of the time, over all answers. */
  generation_tps: number;
  /** GB (10⁹ bytes). */
  peak_memory: number;
}

/** @throws UserError for a prompt that the model cannot take */
export async function batchGenerate(
  model: LanguageModel,
  prompts: readonly (readonly number[])[],
  options: BatchGenerateOptions = {},
): Promise<BatchResponse> {
  const { maxTokens = 128, sampler, stopTokens = [], caches, onFinish, signal, ...limits } = options;
  const stop = [...stopTokens].map((token) => [token]);
  const generator = new BatchGenerator(model, limits);
  const began = performance.now();
  try {
    const answers = new Map<number, number[]>();
    for (const [i, prompt] of prompts.entries()) {
      const own = typeof maxTokens === "number" ? maxTokens : maxTokens[i];
      answers.set(generator.add({ prompt, maxTokens: own, sampler, stop, cache: caches?.[i] }), []);
    }
    let done = 0;
    while (generator.size > 0 && !signal?.aborted) {
      for (const event of generator.step()) {
        if (event.type === "failure") throw event.error;
        if (event.type !== "token") continue;
        if (event.finishReason !== "stop") answers.get(event.id)!.push(event.token);
        if (event.finishReason) onFinish?.(++done, prompts.length);
      }
      await breathe();
    }
    const { promptTokens, promptTime, generationTokens } = generator.work;
    const rest = (performance.now() - began) / 1000 - promptTime;
    return {
      tokens: [...answers.values()],
      prompt_tps: promptTokens / promptTime,
      generation_tps: generationTokens / rest,
      peak_memory: mx.peakMemory() / 1e9,
    };
  } finally {
    generator.dispose();
  }
}
