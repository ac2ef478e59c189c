/**
 * Speculative decoding (Leviathan et al. 2023, arXiv:2211.17192): someone drafts a few tokens at little cost, the model
 * checks them all in one pass. What comes out is what the model alone would give: each draft is held against the token
 * that the model chooses in its place.
 */
import { ExitCode, UserError } from "../errors";
import { breathe } from "../macrotask";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { withWiredLimit } from "../models/wired";
import { pendingOf } from "../nn";
import { greedy } from "../sample";
import type { Drafter } from "./draft/drafter";
import { ModelDrafter, type ModelDrafterOptions } from "./draft/model-drafter";
import { canReturn, ReturnPoint, tokensBeforeGap } from "./draft/return-point";
import { quantizeCaches } from "./kv-quantization";
import { acceptChosen, allowed, isOver, maskAlong } from "./masks";
import { checkMemory } from "./memory-cap";
import { checkPrompt, prefill, usualStepSize } from "./prefill";
import { everywhere, forgetAlike } from "./ranks/alike";
import { checkLogits, isStepToCheck, samplingStep } from "./sampling-step";
import type { StepOptions } from "./step";
import type { Step } from "./stepper";

export interface SpeculativeOptions extends StepOptions {
  /** How many tokens are drafted at a time. */
  numDraftTokens?: number;
}

/** So many tokens that were right are read anew together with the next drafts; more of them in a pass of their own. */
const mostReread = 8;

const cannotReturn = ({ flag }: Drafter) =>
  new UserError("speculative decoding needs a KV cache that can be taken back, and this model's cannot", {
    code: ExitCode.usage,
    hint: `Leave out ${flag}.`,
  });

/**
 * The same with a draft model, which must be able to take its own cache back. Where it no longer can (a sliding window
 * that is full), it goes on without drafts.
 * @throws UserError for an empty prompt, token ids that a model does not know, and caches that cannot be taken back
 */
export async function* speculativeSteps(
  model: LanguageModel,
  draftModel: LanguageModel,
  prompt: readonly number[],
  options: SpeculativeOptions & ModelDrafterOptions = {},
): AsyncGenerator<Step, void, void> {
  yield* draftedSteps(model, new ModelDrafter(draftModel, options), prompt, options);
}

/**
 * Yields the tokens that follow `prompt`, like `generateSteps`, and disposes of the drafter at the end. When the loop ends
 * after N tokens, the cache holds prompt and tokens, but perhaps some of the last.
 * @throws UserError for an empty prompt, token ids that the model does not know, and caches that cannot be taken back
 */
export async function* draftedSteps(
  model: LanguageModel,
  drafter: Drafter,
  prompt: readonly number[],
  options: SpeculativeOptions = {},
): AsyncGenerator<Step, void, void> {
  const { maxTokens = 256, numDraftTokens = 2, sampler = greedy, logitsProcessors = [] } = options;
  const { cachedTokens = [], stopTokens, signal, onPrefill, onDrafts, onEnd, constraint } = options;
  const isPlain = logitsProcessors.length === 0;
  const reader = drafter.reader ?? model;
  const cache = options.cache ?? model.makeCache({ maxSize: options.maxKvSize });
  const isRigid = !forgetAlike(model, { maxSize: options.maxKvSize });
  try {
    checkPrompt(prompt, Math.min(model.vocabSize, drafter.vocabSize ?? model.vocabSize));
    if (options.inputEmbeddings) {
      throw new UserError(`input embeddings do not go with ${drafter.name}`, {
        code: ExitCode.usage,
        hint: `Leave out ${drafter.flag}.`,
      });
    }
    const returns = drafter.needsTrim ? cache.every((layer) => layer.isTrimmable()) : canReturn(cache);
    if (!(isRigid ? everywhere(returns) : returns)) throw cannotReturn(drafter);
  } catch (error) {
    drafter.dispose();
    if (!options.cache) for (const layer of cache) layer.dispose();
    throw error;
  }

  /** The sequence so far, the newest token last, which the model has not read. */
  const history = [...cachedTokens, ...prompt];
  /** How many of them the cache holds. */
  let held = cachedTokens.length;
  /** Between two passes, when `held` is right. */
  let settled = true;
  let passes = 0;

  /** Feeds what the model has not read, and what was proposed; the choices after the newest token and after each proposal. */
  const check = (input: readonly number[], proposed: readonly number[]): [tokens: number[], logprobs: Tensor[]] =>
    mx.scope(() => {
      const count = proposed.length + 1;
      const seen = [...history, ...proposed];
      // Logits processors see another end of the sequence in each row, and each row is drawn by itself then, as in Python.
      const choosers = Array.from({ length: isPlain ? 1 : count }, (_, i) => ({
        sampler: isPlain ? sampler : (logprobs: Tensor) => sampler(logprobs),
        logitsProcessors,
        seen: () => mx.array(seen.slice(0, seen.length - count + i + 1), "uint32"),
      }));
      // Each pass is read at once anyway, so its logits can be looked at.
      const isChecked = isStepToCheck(passes++, history.slice(-1));
      const mask = constraint ? maskAlong(constraint, proposed, model.vocabSize) : null;
      const row = mx.array(input, "uint32").reshape(1, -1);
      const step = samplingStep(reader, row, { cache, choosers, positions: count, isChecked, mask });
      quantizeCaches(cache, options.kvQuantization);
      const { tokens, logprobs } = step;
      mx.eval(tokens, logprobs, step.highest);
      checkLogits(step);
      const rows = options.logprobs ? logprobs.split(count, 0).map((row) => row.squeeze(0)) : [];
      return [[...(tokens.toArray() as Uint32Array)], rows];
    });

  /** The length from which on tokens are read one by one. Of several processes some may not have the layers that it is about. */
  const gap = isRigid ? (options.maxKvSize ?? Number.POSITIVE_INFINITY) : tokensBeforeGap(cache);

  /** Reads tokens again that the cache had to forget, all but the newest. */
  const reread = () => {
    while (held < history.length - 1) {
      const input = history.slice(held, history.length > gap ? held + 1 : -1);
      mx.distributed.evaluatedHereOrNever(() => {
        mx.scope(() => void reader.forward(mx.array(input, "uint32").reshape(1, -1), { cache }));
        quantizeCaches(cache, options.kvQuantization);
        mx.eval(pendingOf(cache));
      });
      held += input.length;
    }
  };

  const onChunk = (done: number, total: number) => {
    [held, settled] = [cachedTokens.length + done, true];
    drafter.onChunk?.();
    onPrefill?.(done, total);
    settled = false;
  };

  /** The pass that is under way: how many tokens it read, how many of them are right, and how the others are forgotten. */
  let pass: { read: number; right: number; point: ReturnPoint | null } | null = null;
  const settle = () => {
    if (!pass) return;
    const { read, right, point } = pass;
    held += point && right < read ? point.back(read, right) : read;
    point?.dispose();
    pass = null;
  };

  const restoreWiredLimit = withWiredLimit();
  try {
    await drafter.prefill?.(prompt);
    // Of the model, for a drafter's reader is none of its own.
    const { prefillStepSize = usualStepSize(model) } = options;
    (await prefill(reader, prompt, cache, { ...options, prefillStepSize, onPrefill: onChunk })).dispose();
    let ended = isOver(constraint, model.vocabSize);
    for (let made = 0; !ended && made !== maxTokens && !signal?.aborted; ) {
      // Text that must follow needs no draft: it is read with the newest token.
      settled = true;
      for (const token of options.logprobs || !constraint ? [] : constraint.forced()) {
        if (made === maxTokens || signal?.aborted) break;
        made += 1;
        history.push(token);
        acceptChosen(constraint, token);
        yield { token, logprobs: null, fromDraft: false };
      }
      if (made === maxTokens || signal?.aborted) break;
      ended = isOver(constraint, model.vocabSize);
      if (ended) break;
      settled = false;
      if (history.length - held > (history.length > gap ? 1 : mostReread)) reread();
      const from = held;
      const left = Math.max(0, gap - history.length);
      const room = Math.min(maxTokens < 0 ? numDraftTokens : maxTokens - made, numDraftTokens, left);
      const proposed = allowed(constraint, drafter.propose(history, room));
      const input = [...history.slice(held), ...proposed];
      const point = proposed.length > 0 ? new ReturnPoint(cache, input.length, isRigid) : null;
      pass = { read: input.length, right: input.length - proposed.length, point };
      const [tokens, logprobs] = check(input, proposed);
      const wrong = proposed.findIndex((token, i) => token !== tokens[i]);
      const accepted = wrong < 0 ? proposed.length : wrong;
      onDrafts?.(proposed.length, accepted);
      settled = true;
      if (made === 0) onPrefill?.(prompt.length, prompt.length);
      try {
        for (let i = 0; !ended && i <= accepted && made !== maxTokens && !signal?.aborted; i++) {
          const token = tokens[i]!;
          const fromDraft = i < accepted;
          if (fromDraft) pass.right += 1;
          made += 1;
          history.push(token);
          acceptChosen(constraint, token);
          yield { token, logprobs: logprobs.shift() ?? null, fromDraft };
          ended = (stopTokens?.has(token) ?? false) || isOver(constraint, model.vocabSize);
        }
      } finally {
        for (const unread of logprobs) unread.dispose();
      }
      settled = false;
      settle();
      drafter.settle(history, { from, accepted });
      checkMemory(options.maxMemory);
      await breathe();
    }
    settled = true;
  } finally {
    restoreWiredLimit();
    settle();
    drafter.dispose();
    if (settled && onEnd) onEnd(cache, history.slice(0, held));
    else if (!options.cache) for (const layer of cache) layer.dispose();
  }
}
