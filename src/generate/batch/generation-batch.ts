/** Sequences that are being answered, side by side: a token of each at a time, one step ahead of what is read. */
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { Cache, LanguageModel } from "../../models";
import type { BatchCache } from "../../nn";
import { disposeLayers, extendLayers, extractLayers, filterLayers } from "./layers";
import { isStopped, type Sequence } from "./sequence";

/** Tokens (B) that are on their way, and the log-probabilities (B, V) that they came from. */
interface Step {
  tokens: Tensor;
  logprobs: Tensor;
}

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

export class GenerationBatch {
  sequences: Sequence[];
  readonly #layers: BatchCache[];
  /** What the next call reads. */
  #pending: Step;

  /** Begins with the last token of each prompt. Takes the caches over. */
  constructor(
    private readonly model: LanguageModel,
    sequences: readonly Sequence[],
    layers: BatchCache[],
  ) {
    this.sequences = [...sequences];
    this.#layers = layers;
    for (const sequence of sequences) {
      if (sequence.logitsProcessors.length > 0) sequence.history = mx.array(sequence.tokens, "uint32");
    }
    const last = sequences.map(({ prompt }) => prompt.at(-1)!);
    for (const [i, sequence] of sequences.entries()) sequence.tokens.push(last[i]!);
    const input = mx.array(last, "uint32");
    this.#pending = this.#submit(input);
    input.dispose();
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
    });
    discard(other.#pending);
    this.sequences.push(...other.sequences);
  }

  /** Submits the next step and reads the present one. Sequences that end leave the batch. */
  step(): TokenEvent[] {
    const current = this.#pending;
    this.#pending = this.#submit(current.tokens);
    const tokens = current.tokens.toArray() as Uint32Array;
    const events = this.sequences.map((sequence, row): TokenEvent => {
      const token = tokens[row]!;
      sequence.tokens.push(token);
      sequence.generated += 1;
      const finishReason = isStopped(sequence) ? "stop" : sequence.generated >= sequence.maxTokens ? "length" : null;
      const logprobs = sequence.logprobs ? mx.scope(() => current.logprobs.at(row)) : null;
      const event: TokenEvent = { type: "token", id: sequence.id, token, logprobs, finishReason };
      if (finishReason === null || !sequence.keepCache) return event;
      return { ...event, cache: extractLayers(this.#layers, row), tokens: [...sequence.tokens] };
    });
    discard(current);
    const ended = new Set(events.flatMap(({ id, finishReason }) => (finishReason ? [id] : [])));
    this.filter(({ id }) => !ended.has(id));
    return events;
  }

  #submit(input: Tensor): Step {
    const step = mx.scope(() => {
      const all = this.model.forward(input.expandDims(1), { cache: this.#layers }).at(":", -1);
      const logits = this.#processed(all, input);
      const logprobs = logits.subtract(logits.logsumexp({ axis: -1, keepdims: true }));
      return { tokens: this.#sampled(logprobs), logprobs };
    });
    mx.asyncEval(step.tokens, step.logprobs);
    return step;
  }

  #processed(logits: Tensor, input: Tensor): Tensor {
    if (this.sequences.every(({ logitsProcessors }) => logitsProcessors.length === 0)) return logits;
    const rows = this.sequences.map((sequence, row) => {
      const own = mx.sliceAxis(logits, 0, row, row + 1);
      if (!sequence.history) return own;
      const seen = mx.concatenate([sequence.history, mx.sliceAxis(input, 0, row, row + 1)]);
      mx.release(sequence.history);
      sequence.history = mx.keep(seen);
      return sequence.logitsProcessors.reduce((scores, process) => process(seen, scores), own);
    });
    return mx.concatenate(rows, { axis: 0 });
  }

  /** One draw for all where they share a sampler. */
  #sampled(logprobs: Tensor): Tensor {
    const samplers = this.sequences.map(({ sampler }) => sampler);
    const [first] = samplers;
    if (samplers.every((sampler) => sampler === first)) return first!(logprobs);
    return mx.concatenate(samplers.map((sampler, row) => sampler(mx.sliceAxis(logprobs, 0, row, row + 1))));
  }

  filter(keep: (sequence: Sequence) => boolean): void {
    const kept = this.sequences.flatMap((sequence, row) => (keep(sequence) ? [row] : []));
    if (kept.length === this.sequences.length) return;
    for (const sequence of this.sequences) if (!keep(sequence)) forget(sequence);
    this.sequences = kept.map((row) => this.sequences[row]!);
    if (kept.length === 0) {
      this.dispose();
      return;
    }
    filterLayers(this.#layers, kept);
    const { tokens, logprobs } = this.#pending;
    const taken = (x: Tensor) => mx.take(x, kept, { axis: 0 });
    this.#replace(mx.scope(() => ({ tokens: taken(tokens), logprobs: taken(logprobs) })));
  }

  #replace(next: Step): void {
    discard(this.#pending);
    this.#pending = next;
  }

  /** A copy of a sequence's cache, which the caller disposes of; null where the sequence is not here. */
  extract(id: number): Cache[] | null {
    const row = this.sequences.findIndex((sequence) => sequence.id === id);
    return row < 0 ? null : extractLayers(this.#layers, row);
  }

  dispose(): void {
    for (const sequence of this.sequences) forget(sequence);
    this.sequences = [];
    disposeLayers(this.#layers);
    discard(this.#pending);
  }
}

function discard({ tokens, logprobs }: Step): void {
  tokens.dispose();
  logprobs.dispose();
}

function forget(sequence: Sequence): void {
  if (sequence.history) mx.release(sequence.history);
  sequence.history = null;
}
