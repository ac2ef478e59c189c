/** Sequences whose prompts are being read, side by side: a chunk of each at a time. */
import * as mx from "../../mlx";
import type { Cache } from "../../models";
import { type BatchCache, bytesOf, pendingOf } from "../../nn";
import { disposeLayers, extendLayers, extractLayers, filterLayers, mergeLayers } from "./layers";
import type { BatchModel } from "./model";
import { evenChunk, nextChunk, type Sequence } from "./sequence";

export class PromptBatch {
  sequences: Sequence[] = [];
  #layers: BatchCache[] | null = null;
  /** Tokens that were read since freed memory was last given back: doing so takes as long as reading a few. */
  #readSince = 0;

  constructor(
    private readonly model: BatchModel,
    private readonly stepSize: number,
  ) {}

  get nbytes(): number {
    return bytesOf(this.#layers ?? []);
  }

  /** @param caches what each of the sequences begins with; they stay as they are */
  add(sequences: readonly Sequence[], caches: readonly (readonly Cache[])[]): void {
    if (sequences.length === 0) return;
    const layers = mergeLayers(caches);
    if (this.#layers) extendLayers(this.#layers, layers);
    else this.#layers = layers;
    this.sequences.push(...sequences);
  }

  /** Takes the sequences out whose prompts are read but for the last token. */
  takeRead(): { sequences: Sequence[]; layers: BatchCache[] } | null {
    const isRead = ({ fed, prompt }: Sequence) => fed === prompt.length - 1;
    const read = this.#rows(isRead);
    if (read.length === 0) return null;
    const sequences = read.map((row) => this.sequences[row]!);
    if (read.length === this.sequences.length) {
      const layers = this.#layers!;
      this.#layers = null;
      this.sequences = [];
      return { sequences, layers };
    }
    const layers = this.#layers!.map((layer) => layer.select(read));
    this.filter((sequence) => !isRead(sequence));
    return { sequences, layers };
  }

  /** Feeds the next chunk of every prompt, no more than `most` tokens in all, and returns how many that were. */
  feed(most = Number.POSITIVE_INFINITY): number {
    const { sequences } = this;
    if (sequences.length === 0) return 0;
    const layers = this.#layers!;
    const possible = sequences.map((sequence) => nextChunk(sequence, this.stepSize));
    const chunk = evenChunk(possible, most);
    const chunks = sequences.map(({ prompt, fed }, i) => prompt.slice(fed, fed + Math.min(possible[i]!, chunk)));
    const lengths = chunks.map(({ length }) => length);
    const longest = Math.max(...lengths);
    const padded = chunks.flatMap((chunk) => [...chunk, ...new Array<number>(longest - chunk.length).fill(0)]);

    for (const layer of layers) layer.prepare(lengths);
    mx.distributed.evaluatedHereOrNever(() => {
      mx.scope(() => {
        this.model.forward(mx.array(padded, "uint32", [chunks.length, longest]), sequences, { cache: layers });
      });
      for (const layer of layers) layer.finalize();
      mx.sparingly(() => mx.eval(pendingOf(layers)));
    });
    const read = lengths.reduce((sum, length) => sum + length, 0);
    this.#readSince += read;
    if (this.#readSince >= this.stepSize) {
      mx.clearSurplus();
      this.#readSince = 0;
    }
    for (const [i, sequence] of sequences.entries()) {
      sequence.fed += chunks[i]!.length;
      sequence.tokens.push(...chunks[i]!);
    }
    return read;
  }

  filter(keep: (sequence: Sequence) => boolean): void {
    const kept = this.#rows(keep);
    if (kept.length === this.sequences.length) return;
    if (this.#layers && kept.length > 0) filterLayers(this.#layers, kept);
    else this.dispose();
    this.sequences = kept.map((row) => this.sequences[row]!);
  }

  /** A copy of a sequence's cache, which the caller disposes of; null where the sequence is not here. */
  extract(id: number): Cache[] | null {
    const row = this.sequences.findIndex((sequence) => sequence.id === id);
    return row < 0 ? null : extractLayers(this.#layers!, row);
  }

  #rows(keep: (sequence: Sequence) => boolean): number[] {
    return this.sequences.flatMap((sequence, row) => (keep(sequence) ? [row] : []));
  }

  /** Gives the caches back; the list of sequences stays. */
  dispose(): void {
    disposeLayers(this.#layers ?? []);
    this.#layers = null;
  }
}
