/** Sequences that are being answered, side by side: a token of each at a time, one step ahead of what is read. */
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { Cache } from "../../models";
import type { BatchCache } from "../../nn";
import { acceptChosen, type StepMask, stepMask } from "../masks";
import { badLogits, type Chosen, choose, isStepToCheck } from "../sampling-step";
import { disposeLayers, extendLayers, extractLayers, filterLayers } from "./layers";
import type { BatchModel } from "./model";
import { isStopped, type Sequence } from "./sequence";

export interface TokenEvent {
  type: "token";
  id: number;
  token: number;
  /** (V), which the caller disposes of; null where not asked for. */
  logprobs: Tensor | null;
  finishReason: "stop" | "length" | null;
  /** At the end, where asked for: the sequence's cache, which the caller disposes of, and the tokens in it. */
  cache?: Cache[];
  tokens?: number[];
}

/** A sequence that cannot go on, and why. The others in the batch have no part in it. */
export interface FailureEvent {
  type: "failure";
  id: number;
  error: unknown;
}

export class GenerationBatch {
  sequences: Sequence[];
  readonly #layers: BatchCache[];
  /** What the next call reads. */
  #pending: Chosen;
  /** Those that cannot go on, and why; they leave with the next step. */
  readonly #failed = new WeakMap<Sequence, unknown>();
  /** How many tokens of each sequence have been read, at least. */
  #steps = 0;

  /** Begins with the last token of each prompt. Takes the caches over. */
  constructor(
    private readonly model: BatchModel,
    sequences: readonly Sequence[],
    layers: BatchCache[],
  ) {
    this.sequences = [...sequences];
    this.#layers = layers;
    const last = sequences.map(({ prompt }) => prompt.at(-1)!);
    for (const [i, sequence] of sequences.entries()) sequence.tokens.push(last[i]!);
    const input = mx.array(last, "uint32");
    try {
      this.#pending = this.#choose(this.#feed(input), input, this.#mask());
    } catch (error) {
      for (const sequence of sequences) sequence.forget();
      disposeLayers(layers);
      throw error;
    } finally {
      input.dispose();
    }
  }

  get nbytes(): number {
    return this.#layers.reduce((sum, { nbytes }) => sum + nbytes, 0);
  }

  /** Takes over the sequences of another batch. */
  extend(other: GenerationBatch): void {
    extendLayers(this.#layers, other.#layers);
    const steps = [this.#pending, other.#pending];
    this.#replace({
      tokens: mx.concatenate(steps.map(({ tokens }) => tokens)),
      logprobs: mx.concatenate(steps.map(({ logprobs }) => logprobs)),
      highest: highestOf(steps),
    });
    discard(other.#pending);
    this.sequences.push(...other.sequences);
  }

  /** Submits the next step and reads the present one. Sequences that end leave the batch. */
  step(): (TokenEvent | FailureEvent)[] {
    const current = this.#pending;
    // Without a grammar the next choice needs no token of this one: it is submitted before they are read.
    const isFree = this.sequences.every(({ constraint }) => constraint === null);
    const logits = this.#feed(current.tokens);
    if (isFree) this.#pending = this.#choose(logits, current.tokens, null);
    else mx.asyncEval(logits);
    const tokens = current.tokens.toArray() as Uint32Array;
    for (const [row, error] of badLogits(current).entries()) if (error) this.#failed.set(this.sequences[row]!, error);
    const mask = isFree ? null : this.#follow(tokens);
    if (!isFree) this.#pending = this.#choose(logits, current.tokens, mask);
    this.#steps++;
    const events = this.sequences.map((sequence, row): TokenEvent | FailureEvent => {
      if (this.#failed.has(sequence)) return { type: "failure", id: sequence.id, error: this.#failed.get(sequence) };
      const token = tokens[row]!;
      sequence.tokens.push(token);
      sequence.generated += 1;
      const isOver = isStopped(sequence) || mask?.isOver[row];
      const finishReason = isOver ? "stop" : sequence.generated >= sequence.maxTokens ? "length" : null;
      const logprobs = sequence.logprobs ? mx.scope(() => current.logprobs.at(row)) : null;
      const event: TokenEvent = { type: "token", id: sequence.id, token, logprobs, finishReason };
      if (finishReason === null || !sequence.keepCache) return event;
      return { ...event, cache: extractLayers(this.#layers, row), tokens: [...sequence.tokens] };
    });
    discard(current);
    const ended = new Set(
      events.flatMap((event) => (event.type === "failure" || event.finishReason ? [event.id] : [])),
    );
    this.filter(({ id }) => !ended.has(id));
    return events;
  }

  /** Submits a token of each sequence to the model. */
  #feed(input: Tensor): Tensor {
    return mx.scope(() => this.model.forward(input.expandDims(1), this.sequences, { cache: this.#layers }).at(":", -1));
  }

  /** Submits the choice of what follows; the logits and the mask are used up. */
  #choose(logits: Tensor, input: Tensor, mask: StepMask | null): Chosen {
    const newest = this.sequences.map(({ tokens }) => tokens.at(-1)!);
    try {
      const step = mx.scope(() =>
        choose(logits, input.expandDims(1), {
          ...{ choosers: this.sequences, mask: mask?.bits },
          isChecked: isStepToCheck(this.#steps, newest),
        }),
      );
      mx.asyncEval(step.tokens, step.logprobs, step.highest);
      return step;
    } finally {
      logits.dispose();
      mask?.bits?.dispose();
    }
  }

  /** The grammars go along with a token of each sequence. */
  #follow(tokens: Uint32Array): StepMask | null {
    for (const [row, sequence] of this.sequences.entries()) {
      if (this.#failed.has(sequence)) continue;
      try {
        acceptChosen(sequence.constraint, tokens[row]!);
      } catch (error) {
        this.#failed.set(sequence, error);
      }
    }
    return this.#mask();
  }

  /** What the grammars allow next; null without any. */
  #mask(): StepMask | null {
    const constraints = this.sequences.map((one) => (this.#failed.has(one) ? null : one.constraint));
    if (constraints.every((one) => one === null)) return null;
    const mask = stepMask(constraints, this.model.vocabSize);
    for (const [row, error] of mask.errors.entries()) if (error) this.#failed.set(this.sequences[row]!, error);
    return mask;
  }

  filter(keep: (sequence: Sequence) => boolean): void {
    const kept = this.sequences.flatMap((sequence, row) => (keep(sequence) ? [row] : []));
    if (kept.length === this.sequences.length) return;
    for (const sequence of this.sequences) if (!keep(sequence)) sequence.forget();
    this.sequences = kept.map((row) => this.sequences[row]!);
    if (kept.length === 0) {
      this.dispose();
      return;
    }
    filterLayers(this.#layers, kept);
    const { tokens, logprobs, highest } = this.#pending;
    const taken = (x: Tensor) => mx.take(x, kept, { axis: 0 });
    this.#replace(
      mx.scope(() => ({ tokens: taken(tokens), logprobs: taken(logprobs), highest: highest && taken(highest) })),
    );
  }

  #replace(next: Chosen): void {
    discard(this.#pending);
    this.#pending = next;
  }

  /** A copy of a sequence's cache, which the caller disposes of; null where the sequence is not here. */
  extract(id: number): Cache[] | null {
    const row = this.sequences.findIndex((sequence) => sequence.id === id);
    return row < 0 ? null : extractLayers(this.#layers, row);
  }

  dispose(): void {
    for (const sequence of this.sequences) sequence.forget();
    this.sequences = [];
    disposeLayers(this.#layers);
    discard(this.#pending);
  }
}

function discard({ tokens, logprobs, highest }: Chosen): void {
  tokens.dispose();
  logprobs.dispose();
  highest?.dispose();
}

/** Of all rows where any of the steps is checked; 0 for those of the others. */
function highestOf(steps: readonly Chosen[]): Tensor | null {
  const dtype = steps.find(({ highest }) => highest)?.highest?.dtype;
  if (!dtype) return null;
  return mx.scope(() => mx.concatenate(steps.map(({ highest, tokens }) => highest ?? mx.zeros(tokens.shape, dtype))));
}
