/** The sampling step: forward pass, logits processors, log-probabilities, sampler. */
import { UserError } from "../errors";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { Cache, LanguageModel } from "../models";
import type { LogitsProcessor, Sampler } from "../sample";

/** How the next token of one sequence is chosen. */
export interface Chooser {
  readonly sampler: Sampler;
  readonly logitsProcessors: readonly LogitsProcessor[];
  /** All tokens so far, (T), given the newest, (1). Called once a step, and only where there are processors. */
  seen(newest: Tensor): Tensor;
}

/** Tokens (B), and the log-probabilities (B, V) that they were drawn from. */
export interface Chosen {
  tokens: Tensor;
  logprobs: Tensor;
  /** The highest of the model's logits in each row, (B), where asked for: for `checkLogits`. */
  highest: Tensor | null;
}

export interface StepInput {
  cache: readonly Cache[];
  /** One for each row that is chosen, or one for all. */
  choosers: readonly Chooser[];
  /** Choose after each of so many last tokens of one sequence, not only after the last token of each. */
  positions?: number;
  /** (1, T, D), in place of the model's own. */
  inputEmbeddings?: Tensor;
  /** Give the highest logits too. */
  isChecked?: boolean;
  /** Which tokens may be chosen in each row: bits as `grammar.maskOf` gives them. */
  mask?: Tensor | null;
}

/** Feeds token ids (B, T) and chooses what follows. Neither result is evaluated yet. */
export function samplingStep(model: Pick<LanguageModel, "forward">, input: Tensor, step: StepInput): Chosen {
  return choose(forwardStep(model, input, step), input, step);
}

/** Feeds token ids (B, T) and gives the logits (B, V) of what follows, or (positions, V) of one sequence. */
export function forwardStep(
  model: Pick<LanguageModel, "forward">,
  input: Tensor,
  { cache, positions = 1, inputEmbeddings }: Pick<StepInput, "cache" | "positions" | "inputEmbeddings">,
): Tensor {
  const all = model.forward(input, { cache, inputEmbeddings });
  return positions === 1 ? all.at(":", -1) : all.at(0, mx.slice(-positions));
}

/** Chooses from the logits that follow `input`. */
export function choose(
  own: Tensor,
  input: Tensor,
  { choosers, isChecked = false, mask }: Pick<StepInput, "choosers" | "isChecked" | "mask">,
): Chosen {
  const processedLogits = processed(own, input, choosers);
  const logits = mask ? mx.grammar.maskLogits(processedLogits, mask) : processedLogits;
  const logprobs = logits.subtract(logits.logsumexp({ axis: -1, keepdims: true }));
  return { tokens: drawn(logprobs, choosers), logprobs, highest: isChecked ? own.max({ axis: -1 }) : null };
}

/** Logits are looked at in the first step and after so many more. */
const stepsPerLook = 256;

/** A token that greedy choice and sampling take where no logit is a number. */
const firstOfAll = 0;

/** Whether the step behind `done` others, the last of which chose these tokens, is one to check. */
export function isStepToCheck(done: number, tokens: Iterable<number> = []): boolean {
  if (done % stepsPerLook === 0) return true;
  for (const token of tokens) if (token === firstOfAll) return true;
  return false;
}

/**
 * Frees the highest logits of a step that has been evaluated, where there are any.
 * @throws UserError where one is no number
 */
export function checkLogits(step: Pick<Chosen, "highest">): void {
  for (const error of badLogits(step)) if (error) throw error;
}

/** The same, with what is wrong with each row; empty where the step is not checked. */
export function badLogits(step: Pick<Chosen, "highest">): (UserError | null)[] {
  if (!step.highest) return [];
  const values = mx.scope(() => step.highest!.astype("float32").toArray() as Float32Array);
  step.highest.dispose();
  step.highest = null;
  // NaN is higher than all others.
  return Array.from(values, (value) => (Number.isFinite(value) ? null : noNumbers(value)));
}

function noNumbers(value: number): UserError {
  const what = Number.isNaN(value) ? "NaN" : value < 0 ? "minus infinity" : "infinity";
  return new UserError(`the model's logits are not numbers but ${what}: no token can be chosen`, {
    hint: "Its weights are damaged, or too large for their dtype: download the model again, or convert it with --dtype bfloat16 or float32.",
  });
}

const isPlain = ({ logitsProcessors }: Chooser) => logitsProcessors.length === 0;

function processed(logits: Tensor, input: Tensor, choosers: readonly Chooser[]): Tensor {
  if (choosers.every(isPlain)) return logits;
  const rows = choosers.map((chooser, row) => {
    const own = mx.sliceAxis(logits, 0, row, row + 1);
    if (isPlain(chooser)) return own;
    const newest = mx.sliceAxis(input, 0, Math.min(row, input.dim(0) - 1), Math.min(row + 1, input.dim(0)));
    const seen = chooser.seen(newest.at(0, mx.slice(-1)));
    return chooser.logitsProcessors.reduce((scores, process) => process(seen, scores), own);
  });
  return rows.length === 1 ? rows[0]! : mx.concatenate(rows, { axis: 0 });
}

/** One draw for all where they share a sampler. */
function drawn(logprobs: Tensor, choosers: readonly Chooser[]): Tensor {
  const { sampler } = choosers[0]!;
  if (choosers.length === 1 || choosers.every((one) => one.sampler === sampler)) return sampler(logprobs);
  return mx.concatenate(choosers.map((chooser, row) => chooser.sampler(mx.sliceAxis(logprobs, 0, row, row + 1))));
}

/** The tokens of a sequence on the device, where logits processors see them. */
export class History {
  #tokens: Tensor | null;

  constructor(tokens: readonly number[]) {
    this.#tokens = tokens.length > 0 ? mx.keep(mx.array(tokens, "uint32")) : null;
  }

  /** The tokens with one more, (1); they belong to the history. */
  add(newest: Tensor): Tensor {
    const before = this.#tokens;
    this.#tokens = mx.keep(before ? mx.concatenate([before, newest]) : mx.copy(newest));
    if (before) mx.release(before);
    return this.#tokens;
  }

  dispose(): void {
    if (this.#tokens) mx.release(this.#tokens);
    this.#tokens = null;
  }
}
