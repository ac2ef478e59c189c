/**
 * Prompt look-up: where the last tokens stand earlier in the text too, what followed them there is a good guess. It helps
 * where an answer repeats its prompt: summaries, edits, code. Saxena 2023, https://github.com/apoorvumang/prompt-lookup-decoding.
 */
import type { Checked, Drafter } from "./drafter";

/** How many tokens must be alike, at most and at least: a single one is alike too often. */
const [longest, shortest] = [4, 2];

export class NgramDrafter implements Drafter {
  readonly name = "drafts from the text";
  readonly flag = "--draft ngram";
  /** Where the text goes on behind the latest place of each run of tokens, by the length of the run, the longest first. */
  readonly #places: ReadonlyMap<number, Map<string, number>>;
  /** How many tokens of the text are in there. */
  #indexed = 0;
  /** How many tokens the last draft had, and the next may have: fewer after wrong ones, which cost time. */
  #drafted = 0;
  #most = Number.POSITIVE_INFINITY;

  constructor() {
    const lengths = Array.from({ length: longest - shortest + 1 }, (_, i) => longest - i);
    this.#places = new Map(lengths.map((length) => [length, new Map()]));
  }

  propose(history: readonly number[], count: number): readonly number[] {
    this.#index(history);
    const start = this.#continuation(history);
    const length = start === null ? 0 : Math.min(count, this.#most);
    this.#drafted = length;
    // A text that repeats itself up to its end goes on repeating itself.
    return Array.from({ length }, (_, i) => history[start! + (i % (history.length - start!))]!);
  }

  /** Takes up the runs that end ahead of the newest token: what follows them is known. */
  #index(history: readonly number[]): void {
    for (; this.#indexed < history.length - 1; this.#indexed++) {
      const end = this.#indexed + 1;
      for (const [length, places] of this.#places) if (end >= length) places.set(keyOf(history, end, length), end);
    }
  }

  /** Where the text goes on behind the longest run of tokens that it also ends with. */
  #continuation(history: readonly number[]): number | null {
    const end = history.length;
    for (const [length, places] of this.#places) {
      const place = end < length ? undefined : places.get(keyOf(history, end, length));
      if (place !== undefined) return place;
    }
    return null;
  }

  settle(_: readonly number[], { accepted }: Checked): void {
    if (this.#drafted > 0) this.#most = accepted === this.#drafted ? 2 * accepted : Math.max(accepted, 1);
  }

  dispose(): void {}
}

const keyOf = (tokens: readonly number[], end: number, length: number) => tokens.slice(end - length, end).join();
