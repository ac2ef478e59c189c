/**
 * Decoding under a grammar. What may follow a token is known once the token is: the device already feeds it to the model
 * while the host reads it and asks the grammar, so neither waits for the other. Text that a grammar forces is fed at once.
 */
import { breathe } from "../macrotask";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { Cache, LanguageModel } from "../models";
import type { Constraint } from "../sample/grammar/constraint";
import { bestAllowed, takesBest } from "./best-allowed";
import { quantizeCaches } from "./kv-quantization";
import { acceptChosen, choosesFirst, loneMask } from "./masks";
import type { PrefillOptions } from "./prefill";
import {
  type Chooser,
  type Chosen,
  checkLogits,
  choose,
  forwardStep,
  type History,
  isStepToCheck,
} from "./sampling-step";
import type { Step, StepRequest } from "./stepper";

/** How far an answer is. */
export interface Progress {
  /** The tokens behind the prompt, those that were forced too. */
  made: number[];
  /** Between two steps, when the cache holds them all. */
  settled: boolean;
}

export interface ConstrainedRun {
  model: LanguageModel;
  cache: Cache[];
  chooser: Chooser;
  history: History;
  constraint: Constraint;
  options: Omit<StepRequest, "prompt"> & PrefillOptions;
  progress: Progress;
  /** Called when the prompt is read. */
  onRead: () => void;
  /** Called between two steps. */
  onStep: (tokens: number) => void;
}

/** Fewer forced tokens than this cost as many steps either way. */
const worthJumping = 2;

/** Yields the tokens that follow `last`, the last token of the prompt. */
export async function* constrainedSteps(run: ConstrainedRun, last: number): AsyncGenerator<Step, void, void> {
  const { model, cache, chooser, history, constraint, options, progress } = run;
  const { maxTokens = 256, stopTokens, signal } = options;
  const { made } = progress;
  const isPlain = chooser.logitsProcessors.length === 0;
  const isLate = choosesFirst(chooser, options.logprobs);
  const isBest = takesBest(chooser.sampler);
  const room = () => (maxTokens < 0 ? Number.POSITIVE_INFINITY : maxTokens - made.length);
  /** Tokens that are fed and that logits processors have not seen. */
  let unseen: number[] = [];
  let logits: Tensor | null = null;
  let chosen: Chosen | null = null;

  /** Submits tokens (T) to the model. */
  const feed = (input: Tensor, embeddings?: Tensor) => {
    logits?.dispose();
    logits = mx.scope(() => {
      const inputEmbeddings = embeddings?.at(mx.slice(-1)).expandDims(0);
      const behind = forwardStep(model, input.reshape(1, -1), { cache, inputEmbeddings });
      quantizeCaches(cache, options.kvQuantization);
      return behind;
    });
    mx.asyncEval(logits);
  };

  const feedIds = (ids: readonly number[], embeddings?: Tensor) => {
    const input = mx.array(ids, "uint32");
    feed(input, embeddings);
    input.dispose();
    unseen.push(...ids);
  };

  /** The tokens that must follow, as far as there is room, once the grammar has gone along. */
  const jump = (least: number): number[] => {
    // Log-probabilities are the model's own, which would have to be read at each place.
    if (options.logprobs) return [];
    const forced = constraint.forced().slice(0, room());
    if (forced.length < least) return [];
    for (const token of forced) acceptChosen(constraint, token);
    return forced;
  };

  /** Submits the choice of the next token, among those that are allowed or among all. Null where nothing may follow. */
  const choice = (isHeld: boolean): Chosen | null => {
    const mask = isHeld ? loneMask(constraint, model.vocabSize) : null;
    try {
      if (mask?.isOver[0]) return null;
      const step = mx.scope(() => {
        if (!isPlain && unseen.length > 1) history.add(mx.array(unseen.slice(0, -1), "uint32"));
        const newest = mx.array(unseen.slice(-1), "uint32").reshape(1, 1);
        const isChecked = isStepToCheck(made.length, made.slice(-1));
        const { tokens, logprobs, highest } = choose(logits!, newest, {
          choosers: [chooser],
          isChecked,
          mask: mask?.bits,
        });
        const isKept = options.logprobs || (isBest && !isHeld);
        return { tokens, logprobs: isKept ? logprobs : null, highest };
      });
      mx.asyncEval(step.tokens, step.logprobs, step.highest);
      return step as Chosen;
    } finally {
      mask?.bits?.dispose();
    }
  };

  const forget = () => {
    chosen?.tokens.dispose();
    chosen?.logprobs?.dispose();
    chosen?.highest?.dispose();
    chosen = null;
  };

  /** The next token where the one that was chosen among all is refused. */
  const chooseAgain = (refused: Chosen): number => {
    const best = isBest ? bestAllowed(constraint, refused.logprobs, 0) : null;
    if (best !== null) return best;
    forget();
    chosen = choice(true)!;
    const token = chosen.tokens.item();
    checkLogits(chosen);
    acceptChosen(constraint, token);
    return token;
  };

  /** The next token, which the grammar has gone along with. Null where nothing may follow. */
  const next = (): { token: number; logprobs: Tensor | null } | null => {
    const isHeld = !isLate || constraint.isComplete;
    chosen = choice(isHeld);
    if (!chosen) return null;
    // The device goes on while the host reads the token.
    if (!isLate) feed(chosen.tokens);
    let token = chosen.tokens.item();
    checkLogits(chosen);
    if (isHeld) acceptChosen(constraint, token);
    else if (!constraint.accept(token)) token = chooseAgain(chosen);
    const { tokens, logprobs } = chosen;
    chosen = null;
    unseen = [];
    tokens.dispose();
    const own = options.logprobs ? logprobs.squeeze(0) : null;
    logprobs?.dispose();
    return { token, logprobs: own };
  };

  try {
    progress.settled = false;
    const opening = options.inputEmbeddings ? [] : jump(1);
    feedIds([last, ...opening], options.inputEmbeddings);
    made.push(...opening);
    progress.settled = true;
    if (opening.length > 0) {
      mx.eval(logits!);
      run.onRead();
    }
    for (const token of opening) yield { token, logprobs: null, fromDraft: false };
    while (room() > 0 && !signal?.aborted) {
      progress.settled = false;
      const found = next();
      if (!found) {
        progress.settled = true;
        return;
      }
      const { token, logprobs } = found;
      made.push(token);
      const isFirst = made.length === 1;
      const isLast = stopTokens?.has(token) ?? false;
      const forced = isLast ? [] : jump(isLate ? 1 : worthJumping);
      if (!isLate) unseen.push(token);
      const fed = isLate ? [token, ...forced] : forced;
      if (fed.length > 0) feedIds(fed);
      made.push(...forced);
      progress.settled = true;
      if (isFirst) run.onRead();
      if (signal?.aborted) return;
      yield { token, logprobs, fromDraft: false };
      if (isLast) return;
      for (const token of forced) yield { token, logprobs: null, fromDraft: false };
      run.onStep(made.length);
      await breathe();
    }
  } finally {
    (logits as Tensor | null)?.dispose();
    forget();
  }
}
