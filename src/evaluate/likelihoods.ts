/** Log-probabilities of texts: of continuations after a context, and of whole texts. */
import { UserError } from "../errors";
import { commonLength, type Loan, PrefixStore } from "../generate/prefix-store";
import { breathe } from "../macrotask";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { Cache, LanguageModel } from "../models";
import { mergeCaches } from "../nn";
import type { Likelihood } from "./tasks/request";

export interface LikelihoodOptions {
  /** How many sequences at a time. */
  batchSize: number;
  /** Called as answers come. */
  onDone?: (index: number, answer: Likelihood) => void;
  signal?: AbortSignal;
}

/** A context and its continuations, as ids. */
export interface ContextGroup {
  context: number[];
  continuations: { index: number; tokens: number[] }[];
}

/** How many tokens of a context are read at a time. */
const prefillStep = 2048;

/** The logits of one forward pass are kept below this many numbers. */
const mostLogits = 2 ** 28;

/** Log-probabilities of targets (B, T) given logits (B, T, V), and whether each is the likeliest. */
function judge(logits: Tensor, targets: Tensor): { scores: Tensor; hits: Tensor } {
  const wide = logits.astype("float32");
  const chosen = wide.takeAlongAxis(targets.expandDims(-1), -1).squeeze(-1);
  const scores = chosen.subtract(wide.logsumexp({ axis: -1 }));
  return { scores, hits: mx.argmax(logits, { axis: -1 }).equal(targets) };
}

/** Rows of unequal length as (B, T), zeros behind the shorter ones. */
function padded(rows: readonly (readonly number[])[]): Tensor {
  const length = Math.max(...rows.map((row) => row.length));
  const flat = rows.flatMap((row) => [...row, ...Array<number>(length - row.length).fill(0)]);
  return mx.array(flat, "uint32", [rows.length, length]);
}

/** Which places of (B, T) are the row's own. */
function ownPlaces(lengths: readonly number[], length: number): Tensor {
  return mx.arange(0, length).less(mx.array([...lengths], "int32", [lengths.length, 1]));
}

/** A context that is read to its end, and shares what it can with the one before. */
class ReadContext {
  readonly #prefixes: PrefixStore;
  #loan: Loan | null = null;
  #tokens: readonly number[] = [];

  constructor(private readonly model: LanguageModel) {
    this.#prefixes = new PrefixStore(() => model.makeCache());
  }

  /** Reads a context. Returns log-probabilities of what follows, (V). */
  read(context: readonly number[]): Tensor {
    this.#loan?.settle(this.#tokens);
    const { layers, count } = this.#borrow(context);
    let logprobs: Tensor | null = null;
    for (let at = count; at < context.length; at += prefillStep) {
      logprobs?.dispose();
      const tokens = context.slice(at, at + prefillStep);
      logprobs = mx.scope(() => {
        const input = mx.array(tokens, "uint32", [1, tokens.length]);
        const last = this.model.forward(input, { cache: layers }).at(0, -1).astype("float32");
        return last.subtract(last.logsumexp({ axis: -1, keepdims: true }));
      });
      mx.eval(
        logprobs,
        layers.map(({ state }) => state),
      );
    }
    mx.clearCache();
    return logprobs!;
  }

  #borrow(context: readonly number[]): Loan {
    this.#loan = this.#prefixes.take(context);
    this.#tokens = context;
    return this.#loan;
  }

  /** The caches of the context, which is read again where it has been forgotten. */
  layersOf(context: readonly number[]): Cache[] {
    if (!this.#loan) this.read(context).dispose();
    return this.#loan!.layers;
  }

  /** Takes back what was fed behind the context, or forgets all. */
  takeBack(count: number): void {
    if (!this.#loan!.layers.every((layer) => layer.trim(count) === count)) this.forget();
  }

  forget(): void {
    this.#loan?.close();
    this.#loan = null;
  }

  clear(): void {
    this.forget();
    this.#prefixes.clear();
  }
}

/**
 * The likelihoods of continuations. Contexts go in the order of their tokens, so that what neighbours share (examples
 * above all) is read once; the continuations of one context go side by side, and so do contexts that are only asked for
 * the token that follows.
 * @returns false where it was interrupted
 */
export async function scoreContinuations(
  model: LanguageModel,
  groups: readonly ContextGroup[],
  { batchSize, onDone, signal }: LikelihoodOptions,
): Promise<boolean> {
  const context = new ReadContext(model);
  try {
    const ordered = [...groups].sort((a, b) => inOrder(a.context, b.context));
    for (let at = 0; at < ordered.length; ) {
      if (signal?.aborted) return false;
      const run = letterQuestions(model, ordered.slice(at, at + batchSize));
      const together = scoreLetters(model, context, run);
      const answers = together ?? scoreGroup(model, context, ordered[at]!, batchSize);
      for (const [index, answer] of answers) onDone?.(index, answer);
      at += together ? run.length : 1;
      await breathe();
    }
    return true;
  } finally {
    context.clear();
  }
}

function inOrder(a: readonly number[], b: readonly number[]): number {
  const shared = commonLength(a, b);
  return (a[shared] ?? -1) - (b[shared] ?? -1);
}

/** Of contexts in order those at the beginning whose continuations are one token each, as many as go side by side. */
function letterQuestions(model: LanguageModel, groups: readonly ContextGroup[]): ContextGroup[] {
  const isLong = ({ continuations }: ContextGroup) => continuations.some(({ tokens }) => tokens.length !== 1);
  const end = groups.findIndex(isLong);
  const run = end < 0 ? [...groups] : groups.slice(0, end);
  while (run.length > 1) {
    const length = Math.max(...run.map(({ context }) => context.length)) - sharedLength(run);
    if (run.length * length * model.vocabSize <= mostLogits) break;
    run.pop();
  }
  return run;
}

/** How many tokens contexts in order begin with alike, at least one of each left out. */
function sharedLength(run: readonly ContextGroup[]): number {
  const shortest = Math.min(...run.map(({ context }) => context.length));
  return Math.min(shortest - 1, commonLength(run[0]!.context, run.at(-1)!.context));
}

/** The likelihoods of single tokens, all contexts side by side; null where that is not possible. */
function scoreLetters(
  model: LanguageModel,
  context: ReadContext,
  run: readonly ContextGroup[],
): Map<number, Likelihood> | null {
  if (run.length < 2) return null;
  const shared = sharedLength(run);
  const beginning = run[0]!.context.slice(0, shared);
  if (shared > 0) context.read(beginning).dispose();
  const cache = shared > 0 ? sideBySide(context.layersOf(beginning), run.length) : undefined;
  if (cache === null) return null;
  try {
    const rests = run.map((group) => group.context.slice(shared));
    const choices = run.map(({ continuations }) => continuations.map(({ tokens }) => tokens[0]!));
    const [scores, best] = mx.scope(() => {
      const logits = model.forward(padded(rests), { cache });
      const ends = mx.array(
        rests.map((rest) => rest.length - 1),
        "int32",
        [run.length, 1, 1],
      );
      const last = logits.takeAlongAxis(ends, 1).squeeze(1).astype("float32");
      const all = last.subtract(last.logsumexp({ axis: -1, keepdims: true }));
      const chosen = all.takeAlongAxis(padded(choices), -1);
      return [chosen.toList() as number[][], mx.argmax(last, { axis: -1 }).toList() as number[]];
    });
    const answers = new Map<number, Likelihood>();
    for (const [i, { continuations }] of run.entries()) {
      for (const [j, { index, tokens }] of continuations.entries()) {
        answers.set(index, [scores[i]![j]!, tokens[0] === best[i]]);
      }
    }
    return answers;
  } finally {
    for (const layer of cache ?? []) layer.dispose();
  }
}

function scoreGroup(
  model: LanguageModel,
  context: ReadContext,
  { context: tokens, continuations }: ContextGroup,
  batchSize: number,
): Map<number, Likelihood> {
  const answers = new Map<number, Likelihood>();
  const known = continuations.filter((one) => one.tokens.length > 0);
  for (const { index } of continuations.filter((one) => one.tokens.length === 0)) answers.set(index, [0, true]);
  if (known.length === 0) return answers;
  const firsts = context.read(tokens);
  try {
    const [scores, best] = mx.scope(() => {
      const ids = mx.array(
        known.map((one) => one.tokens[0]!),
        "uint32",
      );
      return [mx.take(firsts, ids).toList() as number[], mx.argmax(firsts).item()];
    });
    for (const [i, { index, tokens: own }] of known.entries()) answers.set(index, [scores[i]!, own[0] === best]);
  } finally {
    firsts.dispose();
  }
  const longer = known.filter((one) => one.tokens.length > 1).sort((a, b) => a.tokens.length - b.tokens.length);
  for (let at = 0; at < longer.length; at += batchSize) {
    const batch = longer.slice(at, at + batchSize);
    const rest = scoreBehind(
      model,
      context,
      tokens,
      batch.map((one) => one.tokens),
    );
    for (const [i, { index }] of batch.entries()) {
      const [first, isGreedy] = answers.get(index)!;
      answers.set(index, [Math.fround(first + rest[i]![0]), isGreedy && rest[i]![1]]);
    }
  }
  return answers;
}

/** The likelihoods of all tokens but the first of each row, behind the context. */
function scoreBehind(
  model: LanguageModel,
  context: ReadContext,
  tokens: readonly number[],
  rows: readonly (readonly number[])[],
): Likelihood[] {
  const layers = context.layersOf(tokens);
  const [alone] = rows;
  if (rows.length === 1) {
    const length = alone!.length - 1;
    const goesBack = layers.every((layer) => layer.isTrimmable(length));
    const answers = scoreFed(model, layers, rows);
    if (goesBack) context.takeBack(length);
    else context.forget();
    return answers;
  }
  const cache = sideBySide(layers, rows.length);
  if (!cache) return rows.flatMap((row) => scoreBehind(model, context, tokens, [row]));
  try {
    return scoreFed(model, cache, rows);
  } finally {
    for (const layer of cache) layer.dispose();
  }
}

/** Copies of a cache as one of a batch; null for a kind that has no such form. */
function sideBySide(layers: readonly Cache[], count: number): Cache[] | null {
  const merged: Cache[] = [];
  try {
    for (const layer of layers) merged.push(mergeCaches(Array<Cache>(count).fill(layer)));
    return merged;
  } catch (error) {
    for (const layer of merged) layer.dispose();
    if (error instanceof UserError) return null;
    throw error;
  }
}

function scoreFed(model: LanguageModel, cache: readonly Cache[], rows: readonly (readonly number[])[]): Likelihood[] {
  const lengths = rows.map((row) => row.length - 1);
  const [sums, greedy] = mx.scope(() => {
    const inputs = padded(rows.map((row) => row.slice(0, -1)));
    const targets = padded(rows.map((row) => row.slice(1)));
    const { scores, hits } = judge(model.forward(inputs, { cache }), targets);
    const own = ownPlaces(lengths, Math.max(...lengths));
    const sum = mx.where(own, scores, 0).sum({ axis: -1 });
    const all = mx.logicalOr(hits, mx.logicalNot(own)).all({ axis: -1 });
    mx.eval(sum, all);
    return [sum.toList() as number[], all.toList() as boolean[]];
  });
  return sums.map((sum, i) => [sum, Boolean(greedy[i])]);
}

/**
 * The likelihood of each whole text but its first token, which nothing stands before. Texts of like length go side by
 * side.
 * @returns false where it was interrupted
 */
export async function scoreTexts(
  model: LanguageModel,
  texts: readonly (readonly number[])[],
  { batchSize, onDone, signal }: LikelihoodOptions,
): Promise<boolean> {
  const order = texts.map((_, i) => i).sort((a, b) => texts[b]!.length - texts[a]!.length);
  const long = order.filter((i) => texts[i]!.length > 1);
  for (const i of order.slice(long.length)) onDone?.(i, [0, true]);
  for (let at = 0; at < long.length; at += batchSize) {
    if (signal?.aborted) return false;
    const batch = long.slice(at, at + batchSize);
    const sums = scoreRows(
      model,
      batch.map((i) => texts[i]!),
    );
    for (const [n, i] of batch.entries()) onDone?.(i, [sums[n]!, false]);
    await breathe();
  }
  return true;
}

function scoreRows(model: LanguageModel, rows: readonly (readonly number[])[]): number[] {
  const length = Math.max(...rows.map((row) => row.length)) - 1;
  const step = Math.max(1, Math.min(prefillStep, Math.floor(mostLogits / (rows.length * model.vocabSize))));
  const cache = length > step ? model.makeCache() : undefined;
  const parts: Tensor[] = [];
  const tokens = padded(rows);
  try {
    for (let from = 0; from < length; from += step) {
      const to = Math.min(length, from + step);
      const part = mx.scope(() => {
        const logits = model.forward(tokens.at(":", mx.slice(from, to)), { cache });
        return judge(logits, tokens.at(":", mx.slice(from + 1, to + 1))).scores;
      });
      parts.push(part);
      mx.eval(part);
      mx.clearCache();
    }
    return mx.scope(() => {
      const scores = mx.concatenate(parts, { axis: 1 });
      const own = ownPlaces(
        rows.map((row) => row.length - 1),
        length,
      );
      return mx.where(own, scores, 0).sum({ axis: -1 }).toList() as number[];
    });
  } finally {
    tokens.dispose();
    for (const part of parts) part.dispose();
    for (const layer of cache ?? []) layer.dispose();
  }
}
