/** Sequences that are being answered, side by side: a token of each at a time, one step ahead of what is read. */
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { Cache } from "../../models";
import { type BatchCache, bytesOf } from "../../nn";
import { bestAllowed, takesBest } from "../best-allowed";
import { acceptChosen, choosesFirst, type StepMask, stepMask } from "../masks";
import { badLogits, type Chosen, choose, isStepToCheck } from "../sampling-step";
import { disposeLayers, extendLayers, extractLayers, filterLayers } from "./layers";
import type { Ended } from "./lockstep";
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
  /** Those whose next token was chosen among all, whatever their grammar allows. */
  readonly #unheld = new WeakSet<Sequence>();
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
      const logits = this.#feed(input);
      this.#pending = this.#choose(logits, input, this.#mask());
    } catch (error) {
      for (const sequence of sequences) sequence.forget();
      disposeLayers(layers);
      throw error;
    } finally {
      input.dispose();
    }
  }

  get nbytes(): number {
    return bytesOf(this.#layers);
  }

  /** Takes over the sequences of another batch. */
  extend(other: GenerationBatch): void {
    extendLayers(this.#layers, other.#layers, true);
    const steps = [this.#pending, other.#pending];
    this.#replace({
      tokens: mx.concatenate(steps.map(({ tokens }) => tokens)),
      logprobs: mx.concatenate(steps.map(({ logprobs }) => logprobs)),
      highest: highestOf(steps),
    });
    discard(other.#pending);
    for (const sequence of other.sequences) if (other.#unheld.has(sequence)) this.#unheld.add(sequence);
    for (const sequence of other.sequences)
      if (other.#failed.has(sequence)) this.#failed.set(sequence, other.#failed.get(sequence));
    this.sequences.push(...other.sequences);
  }

  /** Submits the next step and reads the present one. Sequences that end leave the batch. */
  step(): (TokenEvent | FailureEvent)[] {
    const current = this.#pending;
    const { isHeld, isLate } = this.model.planned(this);
    const isFree = this.#isFree;
    const logits = isLate ? null : this.#feed(current.tokens);
    // Without a grammar the next choice needs no token of this one: it is submitted before they are read.
    if (logits && isFree) this.#pending = this.#choose(logits, current.tokens, null);
    else if (logits) mx.asyncEval(logits);
    const tokens = current.tokens.toArray() as Uint32Array;
    for (const [row, error] of badLogits(current).entries()) if (error) this.#failed.set(this.sequences[row]!, error);
    if (!isFree) this.#follow(tokens, current.logprobs);
    const forced = logits ? [] : this.#jump();
    const mask = isFree ? null : this.#mask();
    let rows = Array.from(tokens, (token, row) => [token, ...(forced[row] ?? [])]);
    if (logits && !isFree) this.#pending = this.#choose(logits, current.tokens, mask);
    else if (!logits) {
      rows = this.model.told(rows);
      const input = mx.array(this.#feedForced(rows), "uint32");
      this.#pending = this.#choose(this.#feed(input), input, mask);
      input.dispose();
    }
    this.#steps++;
    const events = this.sequences.flatMap((sequence, row): (TokenEvent | FailureEvent)[] => {
      const { id } = sequence;
      if (this.#failed.has(sequence)) return [{ type: "failure", id, error: this.#failed.get(sequence) }];
      const all = rows[row]!;
      const made = all.map((token, i): TokenEvent => {
        sequence.tokens.push(token);
        sequence.generated += 1;
        const isOver = isStopped(sequence) || (i === all.length - 1 && mask?.isOver[row]);
        const finishReason = isOver ? "stop" : sequence.generated >= sequence.maxTokens ? "length" : null;
        const logprobs = sequence.logprobs ? mx.scope(() => current.logprobs.at(row)) : null;
        return { type: "token", id, token, logprobs, finishReason };
      });
      return made;
    });
    discard(current);
    this.#end(events, isHeld);
    return events;
  }

  /** Whether a grammar holds some of the answers. */
  get isHeld(): boolean {
    return !this.#isFree;
  }

  /** Whether what was chosen may have to be chosen again: then it is read before the model goes on. */
  get isLate(): boolean {
    return this.sequences.some((sequence) => this.#unheld.has(sequence));
  }

  get #isFree(): boolean {
    return this.sequences.every(({ constraint }) => constraint === null);
  }

  /** Has sequences leave, those of a step's events or those that end on another process. The last events of some get their caches. */
  #end(events: readonly (TokenEvent | FailureEvent)[], isHeld: boolean): void {
    const lasts = new Map(events.map((event) => [event.id, event]));
    const rows = new Map(this.sequences.map((sequence, row) => [sequence.id, row]));
    const own = [...lasts.values()].flatMap((event): Ended[] => {
      if (event.type === "failure") return [[event.id, false]];
      return event.finishReason === null ? [] : [[event.id, this.sequences[rows.get(event.id)!]!.keepCache]];
    });
    const ended = isHeld ? this.model.told(own) : own;
    for (const [id, isKept] of ended) {
      const row = rows.get(id)!;
      if (!isKept) continue;
      Object.assign(lasts.get(id)!, {
        cache: extractLayers(this.#layers, row),
        tokens: [...this.sequences[row]!.tokens],
      });
    }
    const gone = new Set(ended.map(([id]) => id));
    this.filter(({ id }) => !gone.has(id));
  }

  /** Submits a token of each sequence to the model. */
  #feed(input: Tensor): Tensor {
    return mx.scope(() => this.model.forward(input.expandDims(1), this.sequences, { cache: this.#layers }).at(":", -1));
  }

  /** Submits the choice of what follows; the logits and the mask are used up. */
  #choose(logits: Tensor, input: Tensor, mask: StepMask | null): Chosen {
    const newest = this.sequences.map(({ tokens }) => tokens.at(-1)!);
    try {
      const step = mx.scope(() => {
        const chosen = choose(logits, input.expandDims(1), {
          ...{ choosers: this.sequences, mask: mask?.bits },
          isChecked: isStepToCheck(this.#steps, newest),
        });
        return { ...chosen, tokens: this.model.agreed(chosen.tokens) };
      });
      mx.asyncEval(step.tokens, step.logprobs, step.highest);
      return step;
    } finally {
      logits.dispose();
      mask?.bits?.dispose();
    }
  }

  /** The grammars go along with a token of each sequence. Where one does not allow it, another is chosen and put in its place. */
  #follow(tokens: Uint32Array, logprobs: Tensor): void {
    const refused: number[] = [];
    const accept = (row: number) => {
      const sequence = this.sequences[row]!;
      try {
        acceptChosen(sequence.constraint, tokens[row]!);
      } catch (error) {
        this.#failed.set(sequence, error);
      }
    };
    for (const [row, sequence] of this.sequences.entries()) {
      if (this.#failed.has(sequence)) continue;
      if (!this.#unheld.has(sequence)) accept(row);
      else if (!sequence.constraint!.accept(tokens[row]!)) {
        const best = takesBest(sequence.sampler) ? bestAllowed(sequence.constraint!, logprobs, row) : null;
        if (best === null) refused.push(row);
        else tokens[row] = best;
      }
    }
    if (refused.length === 0) return;
    const again = refused.map((row) => this.sequences[row]!);
    const mask = stepMask(
      again.map(({ constraint }) => constraint),
      this.model.vocabSize,
    );
    mx.scope(() => {
      const all = mx.take(logprobs, refused, { axis: 0 });
      const choice = choose(all, all, { choosers: again, mask: mask.bits });
      const chosen = choice.tokens.toArray() as Uint32Array;
      for (const [i, row] of refused.entries()) {
        const error = mask.errors[i];
        if (error) this.#failed.set(again[i]!, error);
        else {
          tokens[row] = chosen[i]!;
          accept(row);
        }
      }
    });
    mask.bits?.dispose();
  }

  /**
   * The text that must follow in each row, as tokens that the grammars have gone along with, as far as most rows have so
   * much of it: rows are as long as the longest of them, and what the others lack is work for nothing.
   */
  #jump(): (readonly number[])[] {
    const forced = this.sequences.map((sequence) => {
      const { constraint, logprobs, maxTokens, generated } = sequence;
      if (!constraint || logprobs || this.#failed.has(sequence)) return [];
      return constraint.forced().slice(0, maxTokens - generated - 1);
    });
    const length = commonLength(forced.map((tokens) => tokens.length));
    return forced.map((tokens, row) => {
      const taken = tokens.slice(0, length);
      for (const token of taken) acceptChosen(this.sequences[row]!.constraint, token);
      return taken;
    });
  }

  /** Feeds each row's token and its forced ones, and returns the last of them, which are yet to be fed. */
  #feedForced(rows: readonly (readonly number[])[]): number[] {
    const lengths = rows.map(({ length }) => length - 1);
    const longest = Math.max(0, ...lengths);
    const lasts = rows.map((row) => row.at(-1)!);
    if (longest === 0) return lasts;
    const fed = rows.flatMap((row) => Array.from({ length: longest }, (_, i) => (i < row.length - 1 ? row[i]! : 0)));
    for (const layer of this.#layers) layer.prepare(lengths);
    mx.scope(() => {
      const input = mx.array(fed, "uint32", [rows.length, longest]);
      this.model.forward(input, this.sequences, { cache: this.#layers });
    });
    for (const layer of this.#layers) layer.finalize();
    return lasts;
  }

  /** What the grammars allow next, for the rows that are not chosen among all tokens first; null without any. */
  #mask(): StepMask | null {
    const constraints = this.sequences.map((sequence) => {
      const { constraint } = sequence;
      this.#unheld.delete(sequence);
      if (!constraint || this.#failed.has(sequence)) return null;
      if (!choosesFirst(sequence, sequence.logprobs) || constraint.isComplete) return constraint;
      this.#unheld.add(sequence);
      return null;
    });
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

/** Of what is fed for forced text, so much is. */
const leastForced = 0.75;

/** How many tokens of forced text all rows take, given how many each has; 0 where too few have any. */
export function commonLength(lengths: readonly number[]): number {
  const pays = (length: number) => {
    const useful = lengths.reduce((sum, own) => sum + Math.min(own, length), 0);
    return useful >= leastForced * length * lengths.length;
  };
  return Math.max(0, ...lengths.filter(pays));
}
