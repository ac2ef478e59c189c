/**
 * Speculative decoding (Leviathan et al. 2023, arXiv:2211.17192): a small model drafts a few tokens, the large one checks
 * them all in one pass. What comes out is what the large model alone would give.
 */
import { ExitCode, UserError } from "../errors";
import { breathe } from "../macrotask";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { Cache, LanguageModel } from "../models";
import { withWiredLimit } from "../models/wired";
import { greedy } from "../sample";
import { quantizeCaches } from "./kv-quantization";
import { checkMemory } from "./memory-cap";
import { checkPrompt, prefill } from "./prefill";
import { type Chosen, checkLogits, isStepToCheck, samplingStep } from "./sampling-step";
import type { StepOptions } from "./step";
import type { Step } from "./stepper";

export interface SpeculativeOptions extends StepOptions {
  /** How many tokens the draft model proposes at a time. */
  numDraftTokens?: number;
  /** The draft model's cache, as `cache` is the model's. */
  draftCache?: Cache[];
}

/** A model with what it has read. */
interface Reader {
  model: LanguageModel;
  cache: Cache[];
}

/** Whether a cache can be taken back, after so many more tokens too. */
const canTrim = (cache: readonly Cache[], more = 0) => cache.every((layer) => layer.isTrimmable(more));

function rewind(cache: readonly Cache[], count: number): void {
  if (count > 0) for (const layer of cache) layer.trim(count);
}

/**
 * Yields the tokens that follow `prompt`, like `generateSteps`. Where a cache can no longer be taken back (a sliding
 * window that is full), it goes on without drafts. When the loop ends after N tokens, both caches hold prompt and
 * tokens, but perhaps the last.
 * @throws UserError for an empty prompt, token ids that a model does not know, and caches that cannot be taken back
 */
export async function* speculativeSteps(
  model: LanguageModel,
  draftModel: LanguageModel,
  prompt: readonly number[],
  options: SpeculativeOptions = {},
): AsyncGenerator<Step, void, void> {
  const { maxTokens = 256, numDraftTokens = 2, sampler = greedy, logitsProcessors = [] } = options;
  const { cachedTokens = [], stopTokens, signal, onPrefill, onEnd } = options;
  const isPlain = logitsProcessors.length === 0;
  checkPrompt(prompt, Math.min(model.vocabSize, draftModel.vocabSize));
  if (options.inputEmbeddings) {
    throw new UserError("input embeddings do not go with a draft model", {
      code: ExitCode.usage,
      hint: "Leave out --draft-model.",
    });
  }
  const target: Reader = { model, cache: options.cache ?? model.makeCache({ maxSize: options.maxKvSize }) };
  const draft: Reader = { model: draftModel, cache: options.draftCache ?? draftModel.makeCache() };
  if (!canTrim(target.cache) || !canTrim(draft.cache)) {
    throw new UserError("speculative decoding needs a KV cache that can be taken back, and this model's cannot", {
      code: ExitCode.usage,
      hint: "Leave out --draft-model.",
    });
  }

  /** The sequence so far, the newest token last, which the model has not read. */
  const history = [...cachedTokens, ...prompt.slice(0, -1)];

  let rounds = 0;

  /** The choices after each of the last `count` tokens of `input` (T), given all tokens up to its end. */
  const read = ({ model, cache }: Reader, input: Tensor, count: number, seen: readonly number[]): Chosen => {
    // Logits processors see another end of the sequence in each row, and each row is drawn by itself then, as in Python.
    const choosers = Array.from({ length: isPlain ? 1 : count }, (_, i) => ({
      sampler: isPlain ? sampler : (logprobs: Tensor) => sampler(logprobs),
      logitsProcessors,
      seen: () => mx.array(seen.slice(0, seen.length - count + i + 1), "uint32"),
    }));
    // Each round is read at once anyway, so its logits can be looked at; a draft's tokens are checked by the model.
    const isChecked = model === target.model && isStepToCheck(rounds++, history.slice(-1));
    const chosen = samplingStep(model, input.reshape(1, -1), { cache, choosers, positions: count, isChecked });
    quantizeCaches(cache, options.kvQuantization);
    return chosen;
  };

  /** Up to `count` tokens that the draft model puts after `pending`. */
  const propose = (pending: readonly number[], count: number): number[] => {
    const proposed: number[] = [];
    for (let input = pending; proposed.length < count; input = proposed.slice(-1)) {
      const seen = [...history, ...proposed];
      proposed.push(mx.scope(() => read(draft, mx.array(input, "uint32"), 1, seen).tokens.item()));
    }
    return proposed;
  };

  /** The model's own choices after the last token and after each of the proposed ones; (V) for each, where asked for. */
  const check = (last: number, proposed: readonly number[]): [tokens: number[], logprobs: Tensor[]] =>
    mx.scope(() => {
      const input = mx.array([last, ...proposed], "uint32");
      const step = read(target, input, proposed.length + 1, [...history, ...proposed]);
      const { tokens, logprobs } = step;
      mx.eval(tokens, logprobs, step.highest);
      checkLogits(step);
      const rows = options.logprobs ? logprobs.split(proposed.length + 1, 0).map((row) => row.squeeze(0)) : [];
      return [[...(tokens.toArray() as Uint32Array)], rows];
    });

  let drafted = 0;
  let accepted = 0;
  /** How many tokens of the sequence the model's cache holds. */
  let held = cachedTokens.length;
  /** Between two rounds, when `held` is right. */
  let settled = true;
  const rewindBoth = () => {
    rewind(target.cache, drafted - accepted);
    rewind(draft.cache, Math.max(drafted - accepted - 1, 0));
    held -= drafted - accepted;
    drafted = accepted = 0;
  };
  const onChunk = (done: number, total: number) => {
    [held, settled] = [cachedTokens.length + done, true];
    onPrefill?.(done, total);
    settled = false;
  };

  const restoreWiredLimit = withWiredLimit();
  try {
    const unread = options.draftCache ? prompt : [...cachedTokens, ...prompt];
    (await prefill(draft.model, unread, draft.cache, { ...options, onPrefill: undefined })).dispose();
    (await prefill(target.model, prompt, target.cache, { ...options, onPrefill: onChunk })).dispose();
    let last = prompt.at(-1)!;
    let pending = [last];
    let ended = false;
    history.push(last);
    for (let made = 0; !ended && made !== maxTokens && !signal?.aborted; ) {
      const room = maxTokens < 0 ? numDraftTokens : Math.min(maxTokens - made, numDraftTokens);
      const rewindable = canTrim(target.cache, room + 1) && canTrim(draft.cache, room + 1);
      const proposed = propose(pending, rewindable ? room : 0);
      const [tokens, logprobs] = check(last, proposed);
      drafted = proposed.length;
      held += 1 + drafted;
      settled = true;
      if (made === 0) onPrefill?.(prompt.length, prompt.length);
      try {
        for (let i = 0; !ended && i <= drafted && made !== maxTokens && !signal?.aborted; i++) {
          const token = tokens[i]!;
          const fromDraft = token === proposed[i];
          if (fromDraft) accepted += 1;
          made += 1;
          history.push(token);
          yield { token, logprobs: logprobs.shift() ?? null, fromDraft };
          ended = stopTokens?.has(token) ?? false;
          if (!fromDraft) break;
        }
      } finally {
        for (const unread of logprobs) unread.dispose();
      }
      settled = false;
      const all = accepted === drafted;
      last = history.at(-1)!;
      // A proposal that was right to the end has not been read by its own model yet.
      pending = all && drafted > 0 ? history.slice(-2) : [last];
      rewindBoth();
      checkMemory(options.maxMemory);
      await breathe();
    }
    settled = true;
  } finally {
    restoreWiredLimit();
    rewindBoth();
    if (settled && onEnd) onEnd(target.cache, history.slice(0, held));
    else if (!options.cache) for (const layer of target.cache) layer.dispose();
    if (!options.draftCache) for (const layer of draft.cache) layer.dispose();
  }
}
