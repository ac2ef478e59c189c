/** Caches of which other processes have parts: what becomes of them here, becomes of those too. */
import type { Cache } from "../../models";

/** What the others are told. Caches have numbers, counted alike on all processes. */
export type CacheChange =
  /** An empty one, under the next number. */
  | { type: "make" }
  /** A copy, under the next number. */
  | { type: "copy"; cache: number }
  | { type: "cut"; cache: number; count: number }
  | { type: "drop"; cache: number };

/** All that one stepper has others hold. */
export class CachesElsewhere {
  #next = 0;

  /**
   * @param tell is heard by the others ahead of the next step
   * @param canCut whether those of all processes forget tokens as these here do
   */
  constructor(
    private readonly tell: (change: CacheChange) => void,
    readonly canCut: boolean,
  ) {}

  /** The others hold their parts of these, under the next number. */
  add(layers: readonly Cache[]): void {
    held.set(layers, { owner: this, number: this.#next++ });
  }

  make(layers: readonly Cache[]): void {
    this.tell({ type: "make" });
    this.add(layers);
  }

  copied(from: number, layers: readonly Cache[]): void {
    this.tell({ type: "copy", cache: from });
    this.add(layers);
  }

  cut(cache: number, count: number): void {
    this.tell({ type: "cut", cache, count });
  }

  drop(cache: number): void {
    this.tell({ type: "drop", cache });
  }
}

const held = new WeakMap<readonly Cache[], { owner: CachesElsewhere; number: number }>();

/** Who has other processes hold parts of a cache, and the cache's number there; undefined where nobody does. */
export const elsewhere = (layers: readonly Cache[]) => held.get(layers);

/** The same no longer. */
export function forgetElsewhere(layers: readonly Cache[]): void {
  const found = held.get(layers);
  held.delete(layers);
  found?.owner.drop(found.number);
}
