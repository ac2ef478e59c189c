/** Several caches of one layer: a recurrent state beside attention's keys, or two kinds of attention. */
import type { BatchCache } from "./batch";
import type { Cache } from "./cache";

export class CacheList<Part extends Cache = Cache> implements Cache {
  constructor(readonly parts: readonly Part[]) {}

  get size(): number {
    return Math.max(...this.parts.map(({ size }) => size));
  }

  get nbytes(): number {
    return this.parts.reduce((sum, { nbytes }) => sum + nbytes, 0);
  }

  get empty(): boolean {
    return this.parts[0]!.empty;
  }

  isTrimmable(more = 0): boolean {
    return this.parts.every((part) => part.isTrimmable(more));
  }

  trim(count: number): number {
    return Math.min(...this.parts.map((part) => part.trim(count)));
  }

  get state(): unknown {
    return this.parts.map(({ state }) => state);
  }

  dispose(): void {
    for (const part of this.parts) part.dispose();
  }
}

/** The same for a batch. */
export class BatchCacheList extends CacheList<BatchCache> implements BatchCache {
  get batchSize(): number {
    return this.parts[0]!.batchSize;
  }

  select(chosen: readonly number[]): BatchCacheList {
    return new BatchCacheList(this.parts.map((part) => part.select(chosen)));
  }

  filter(rows: readonly number[]): void {
    for (const part of this.parts) part.filter(rows);
  }

  extend(other: BatchCacheList): void {
    for (const [i, part] of this.parts.entries()) part.extend(other.parts[i]!);
  }

  extract(row: number): CacheList {
    return new CacheList(this.parts.map((part) => part.extract(row)));
  }

  prepare(lengths: readonly number[]): void {
    for (const part of this.parts) part.prepare(lengths);
  }

  finalize(): void {
    for (const part of this.parts) part.finalize();
  }
}
