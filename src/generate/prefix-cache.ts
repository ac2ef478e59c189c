/** One conversation's cache: each prompt starts from the tokens that it shares with what is held already. */
import type { Cache } from "../models";

export class PrefixCache {
  #layers: Cache[] | null = null;
  /** What the layers hold; null while a generation changes them. */
  #tokens: readonly number[] | null = [];

  /** @param make an empty cache, as `model.makeCache` gives it */
  constructor(private readonly make: () => Cache[]) {}

  /** For the generation that follows `reuse`. */
  get layers(): Cache[] {
    this.#layers ??= this.make();
    return this.#layers;
  }

  /**
   * Forgets what is no beginning of `prompt`, or everything where a layer cannot forget a part. Call `settle` after the
   * generation; without it nothing is reused the next time.
   * @returns how many of the prompt's tokens need not be fed; never all of them
   */
  reuse(prompt: readonly number[]): number {
    const held = this.#tokens ?? [];
    const shared = Math.min(commonLength(held, prompt), prompt.length - 1);
    const kept = this.#tokens && shared > 0 && this.#trim(held.length - shared);
    if (!kept) this.clear();
    this.#tokens = null;
    return kept ? shared : 0;
  }

  /**
   * Says what a generation has fed: prompt and answer. An interrupted one may have fed less, or one token more.
   */
  settle(tokens: readonly number[], { interrupted = false } = {}): void {
    this.#tokens = tokens;
    if (!interrupted) return;
    const layers = this.layers;
    const sizes = layers.map(({ size }) => size);
    const known = Math.min(tokens.length, ...sizes);
    // The size of a cache that cannot be trimmed does not tell how many tokens it has seen.
    const trimmed = layers.every(
      (layer, i) => layer.isTrimmable() && layer.trim(sizes[i]! - known) === sizes[i]! - known,
    );
    if (trimmed) this.#tokens = tokens.slice(0, known);
    else this.clear();
  }

  #trim(count: number): boolean {
    if (count === 0) return true;
    return (
      this.layers.every((layer) => layer.isTrimmable()) && this.layers.every((layer) => layer.trim(count) === count)
    );
  }

  /** Forgets everything and gives the memory back. */
  clear(): void {
    for (const layer of this.#layers ?? []) layer.dispose();
    this.#layers = null;
    this.#tokens = [];
  }
}

function commonLength(a: readonly number[], b: readonly number[]): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length++;
  return length;
}
