/**
 * Batches of caches that serve one sequence at a time: what a layer keeps grows by other steps in each row, so the rows
 * stay apart, and who reads them reads one after the other.
 */
import type { BatchCache } from "./batch";
import { bytesOf, type Cache } from "./cache";
import { CacheList } from "./cache-list";
import { type CacheKind, type CacheState, savedKindOf, savedStateOf } from "./kind";

/** Several caches of one layer, of which a batch is made only by keeping rows apart. */
export class LoneCacheList<Part extends Cache = Cache> extends CacheList<Part> {
  static override readonly kind: CacheKind<LoneCacheList> = {
    ...(CacheList.kind as unknown as CacheKind<LoneCacheList>),
    name: "LoneCacheList",
    restore: (state, kinds) => new LoneCacheList(CacheList.kind.restore(state, kinds).parts),
    merge: (lists) => new RowsApart(lists.map(copyOf)),
    isWhole: true,
  };

  override get state(): unknown {
    return super.state;
  }

  override set state(states: unknown) {
    for (const [i, state] of (states as unknown[]).entries()) this.parts[i]!.state = state;
  }

  /** Of the parts, some hold one entry for several tokens. */
  override isTrimmable(): boolean {
    return false;
  }

  override trim(): number {
    return 0;
  }
}

/** The same tokens in a cache of its own. Its parts are no lists. */
const copyOf = ({ parts }: LoneCacheList): LoneCacheList =>
  new LoneCacheList(
    parts.map((part) => savedKindOf(part).restore(savedStateOf(part) as CacheState[], () => undefined)),
  );

export class RowsApart implements BatchCache {
  #rows: LoneCacheList[];
  /** How many tokens of the next update are each row's own; null for all. */
  lengths: readonly number[] | null = null;

  constructor(rows: LoneCacheList[]) {
    this.#rows = rows;
  }

  get rows(): readonly LoneCacheList[] {
    return this.#rows;
  }

  get batchSize(): number {
    return this.#rows.length;
  }

  get size(): number {
    return Math.max(...this.#rows.map(({ size }) => size));
  }

  get nbytes(): number {
    return bytesOf(this.#rows);
  }

  get empty(): boolean {
    return this.#rows.every(({ empty }) => empty);
  }

  get state(): unknown {
    return this.#rows.map(({ state }) => state);
  }

  select(chosen: readonly number[]): RowsApart {
    return new RowsApart(chosen.map((row) => copyOf(this.#rows[row]!)));
  }

  filter(kept: readonly number[]): void {
    for (const [row, cache] of this.#rows.entries()) if (!kept.includes(row)) cache.dispose();
    this.#rows = kept.map((row) => this.#rows[row]!);
  }

  extend(other: RowsApart): void {
    this.#rows.push(...other.#rows);
    other.#rows = [];
  }

  extract(row: number): LoneCacheList {
    return copyOf(this.#rows[row]!);
  }

  prepare(lengths: readonly number[]): void {
    this.lengths = lengths;
  }

  finalize(): void {
    this.lengths = null;
  }

  isTrimmable(): boolean {
    return false;
  }

  trim(): number {
    return 0;
  }

  dispose(): void {
    for (const row of this.#rows) row.dispose();
    this.#rows = [];
  }
}
