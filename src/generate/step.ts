/** The decoding loop: prefill in chunks, then one token after the other, the device always one step ahead. */
import { breathe } from "../macrotask";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { Cache, LanguageModel } from "../models";
import { greedy, type LogitsProcessor, type Sampler } from "../sample";
import { quantizeCaches } from "./kv-quantization";
import { checkMemory } from "./memory-cap";
import { checkEmbeddings, checkPrompt, type PrefillOptions, prefill } from "./prefill";

export interface StepOptions extends PrefillOptions {
  /** How many tokens; -1: no limit. */
  maxTokens?: number;
  sampler?: Sampler;
  logitsProcessors?: readonly LogitsProcessor[];
  /** Continued and changed in place; made anew, and disposed of at the end, where absent. */
  cache?: Cache[];
  /** Hand out the log-probabilities of every token. */
  logprobs?: boolean;
}

export interface Step {
  token: number;
  /** (V), where asked for. The receiver disposes of it. */
  logprobs: Tensor | null;
}

/** The allocator gives memory back after this many tokens. */
const stepsPerCleanup = 256;

/** The memory in use is looked at as often as this. */
const stepsPerCheck = 32;

/** A step that has been submitted to the device and not been read. */
interface Pending {
  token: Tensor;
  logprobs: Tensor | null;
}

/**
 * Yields the tokens that follow `prompt`. Step n+1 is submitted before token n is read, so the host builds graphs while
 * the device computes; when the loop ends after N tokens, the cache holds those N.
 * @throws UserError for an empty prompt, ids that the model does not know, embeddings that are not one for each token, and
 *     more memory in use than allowed
 */
export async function* generateSteps(
  model: LanguageModel,
  prompt: readonly number[],
  options: StepOptions = {},
): AsyncGenerator<Step, void, void> {
  const { maxTokens = 256, sampler = greedy, logitsProcessors = [], signal, onPrefill } = options;
  checkPrompt(prompt, model.vocabSize);
  checkEmbeddings(prompt, options.inputEmbeddings);
  const cache = options.cache ?? model.makeCache();
  let history: Tensor | null = null;

  const submit = (input: Tensor, embeddings?: Tensor): Pending => {
    const pending = mx.scope(() => {
      const inputEmbeddings = embeddings?.at(mx.slice(-1)).expandDims(0);
      const logits = model.forward(input.reshape(1, -1), { cache, inputEmbeddings }).at(":", -1);
      quantizeCaches(cache, options.kvQuantization);
      let scores = logits;
      if (logitsProcessors.length > 0) {
        const seen: Tensor = history ? mx.concatenate([history, input]) : mx.copy(input);
        if (history) mx.release(history);
        history = mx.keep(seen);
        for (const process of logitsProcessors) scores = process(seen, scores);
      }
      const logprobs = scores.subtract(scores.logsumexp({ axis: -1, keepdims: true }));
      return { token: sampler(logprobs), logprobs: options.logprobs ? logprobs.squeeze(0) : null };
    });
    mx.asyncEval(pending.token, pending.logprobs);
    return pending;
  };

  let last: Tensor | null = null;
  let current: Pending | null = null;
  let next: Pending | null = null;
  try {
    last = await prefill(model, prompt, cache, options);
    if (signal?.aborted) return;
    if (logitsProcessors.length > 0 && prompt.length > 1) history = mx.array(prompt.slice(0, -1), "uint32");

    current = submit(last, options.inputEmbeddings);
    last.dispose();
    last = null;
    if (maxTokens === 0) onPrefill?.(prompt.length, prompt.length);
    for (let n = 0; n !== maxTokens; n++) {
      next = submit(current.token);
      const token = current.token.item();
      if (n === 0) onPrefill?.(prompt.length, prompt.length);
      if (signal?.aborted) return;
      const { logprobs } = current;
      current.token.dispose();
      current = next;
      next = null;
      yield { token, logprobs };
      if (n % stepsPerCleanup === 0) mx.clearCache();
      if (n % stepsPerCheck === 0) checkMemory(options.maxMemory);
      await breathe();
    }
  } finally {
    last?.dispose();
    for (const unread of [current, next]) {
      unread?.token.dispose();
      unread?.logprobs?.dispose();
    }
    if (history) mx.release(history);
    if (!options.cache) for (const layer of cache) layer.dispose();
  }
}
