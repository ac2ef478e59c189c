/** The decoding loop: prefill in chunks, then one token after the other, the device always one step ahead. */
import { breathe } from "../macrotask";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { withWiredLimit } from "../models/wired";
import { greedy } from "../sample";
import { checkCacheRoom } from "./cache-room";
import { constrainedSteps, type Progress } from "./constrained";
import { quantizeCaches } from "./kv-quantization";
import { checkMemory } from "./memory-cap";
import { checkEmbeddings, checkPrompt, type PrefillOptions, prefill } from "./prefill";
import { checkLogits, History, isStepToCheck, samplingStep } from "./sampling-step";
import type { Step, StepRequest } from "./stepper";

export interface StepOptions extends Omit<StepRequest, "prompt">, PrefillOptions {
  /** Keep only so many tokens of layers that attend to all, in a cache that is made here. */
  maxKvSize?: number;
}

/** The allocator gives memory back after this many tokens. */
const stepsPerCleanup = 256;

/** The memory in use is looked at as often as this. */
const stepsPerCheck = 32;

/** A step that has been submitted to the device and not been read. */
interface Pending {
  token: Tensor;
  logprobs: Tensor | null;
  highest: Tensor | null;
}

/** Looking at the caches' shapes takes some milliseconds, which a prompt of so many tokens does not notice. */
const longPrompt = 16_384;

function checkPromptRoom(model: LanguageModel, tokens: number, { maxKvSize, kvQuantization }: StepOptions): void {
  if (tokens >= longPrompt && maxKvSize === undefined && !kvQuantization) checkCacheRoom(model, tokens);
}

/**
 * Yields the tokens that follow `prompt`. Step n+1 is submitted before token n is read, so the host builds graphs while
 * the device computes; when the loop ends after N tokens, the cache holds those N. `options.cache` is changed in place; a
 * cache that is made here is freed at the end, or handed to `onEnd`.
 * @throws UserError for an empty prompt, ids that the model does not know, embeddings that are not one for each token,
 *     logits that are no numbers, and more memory in use than allowed
 */
export async function* generateSteps(
  model: LanguageModel,
  prompt: readonly number[],
  options: StepOptions = {},
): AsyncGenerator<Step, void, void> {
  const { maxTokens = 256, sampler = greedy, logitsProcessors = [], cachedTokens = [] } = options;
  const { signal, onPrefill, stopTokens, onEnd } = options;
  checkPrompt(prompt, model.vocabSize);
  checkEmbeddings(prompt, options.inputEmbeddings);
  checkPromptRoom(model, prompt.length, options);
  const cache = options.cache ?? model.makeCache({ maxSize: options.maxKvSize });
  const history = new History(logitsProcessors.length > 0 ? [...cachedTokens, ...prompt.slice(0, -1)] : []);
  const choosers = [{ sampler, logitsProcessors, seen: (newest: Tensor) => history.add(newest) }];

  const submit = (input: Tensor, isChecked: boolean, embeddings?: Tensor): Pending => {
    const pending = mx.scope(() => {
      const inputEmbeddings = embeddings?.at(mx.slice(-1)).expandDims(0);
      const step = { cache, choosers, inputEmbeddings, isChecked };
      const { tokens, logprobs, highest } = samplingStep(model, input.reshape(1, -1), step);
      quantizeCaches(cache, options.kvQuantization);
      return { token: tokens, logprobs: options.logprobs ? logprobs.squeeze(0) : null, highest };
    });
    mx.asyncEval(pending.token, pending.logprobs, pending.highest);
    return pending;
  };

  const restoreWiredLimit = withWiredLimit();
  /** How much of the prompt has been fed, and which tokens behind it. */
  let read = 0;
  /** Settled between two steps, when the cache holds what `read` and `made` say. */
  const progress: Progress = { made: [], settled: true };
  const { made } = progress;
  let last: Tensor | null = null;
  let current: Pending | null = null;
  let next: Pending | null = null;
  const onChunk = (done: number, total: number) => {
    [read, progress.settled] = [done, true];
    onPrefill?.(done, total);
    progress.settled = false;
  };
  const onStep = (tokens: number) => {
    if (tokens % stepsPerCleanup === 0) mx.clearSurplus();
    if (tokens % stepsPerCheck === 0) checkMemory(options.maxMemory);
  };
  try {
    last = await prefill(model, prompt, cache, { ...options, onPrefill: onChunk });
    if (signal?.aborted) {
      progress.settled = true;
      return;
    }
    if (options.constraint && maxTokens !== 0) {
      last.dispose();
      last = null;
      read = prompt.length;
      const onRead = () => onPrefill?.(prompt.length, prompt.length);
      const run = { model, cache, chooser: choosers[0]!, history, constraint: options.constraint, options, progress };
      yield* constrainedSteps({ ...run, onRead, onStep }, prompt.at(-1)!);
      return;
    }
    current = submit(last, isStepToCheck(0), options.inputEmbeddings);
    last.dispose();
    last = null;
    read = prompt.length;
    if (maxTokens === 0) onPrefill?.(prompt.length, prompt.length);
    for (let n = 0; n !== maxTokens; n++) {
      next = submit(current.token, isStepToCheck(n + 1, made.slice(-1)));
      const token = current.token.item();
      checkLogits(current);
      made.push(token);
      if (n === 0) onPrefill?.(prompt.length, prompt.length);
      if (signal?.aborted) break;
      const { logprobs } = current;
      current.token.dispose();
      current = next;
      next = null;
      progress.settled = true;
      yield { token, logprobs, fromDraft: false };
      if (stopTokens?.has(token)) break;
      progress.settled = false;
      onStep(n);
      await breathe();
    }
    progress.settled = true;
  } finally {
    restoreWiredLimit();
    last?.dispose();
    for (const unread of [current, next]) {
      unread?.token.dispose();
      unread?.logprobs?.dispose();
      unread?.highest?.dispose();
    }
    history.dispose();
    if (progress.settled && onEnd) onEnd(cache, [...cachedTokens, ...prompt.slice(0, read), ...made]);
    else if (!options.cache) for (const layer of cache) layer.dispose();
  }
}
