/** Several caches of one layer: a recurrent state beside attention's keys, or two kinds of attention. */
import type { BatchCache } from "./batch";
import { bytesOf, type Cache, pendingOf } from "./cache";
import { type CacheKind, type CacheState, type Kinds, savedKindOf, savedStateOf, shown, stateProblem } from "./kind";
import { mergeCaches } from "./merge";

export class CacheList<Part extends Cache = Cache> implements Cache {
  /** Files name the kind of each part beside its state. */
  static readonly kind: CacheKind<CacheList> = {
    name: "CacheList",
    problem(state, kinds) {
      for (const [i, part] of state.entries()) {
        const problem = partProblem(part, kinds);
        if (problem) return `part ${i}: ${problem}`;
      }
      return null;
    },
    restore: (state, kinds) =>
      new CacheList((state as [CacheState[], string][]).map(([own, name]) => kinds(name)!.restore(own, kinds))),
    saved: ({ parts }) => parts.map((part) => [savedStateOf(part), savedKindOf(part).name]),
    merge: (lists) =>
      new BatchCacheList(lists[0]!.parts.map((_, i) => mergeCaches(lists.map(({ parts }) => parts[i]!)))),
    parts: ({ parts }) => parts,
  };

  constructor(readonly parts: readonly Part[]) {}

  get size(): number {
    return Math.max(...this.parts.map(({ size }) => size));
  }

  get nbytes(): number {
    return bytesOf(this.parts);
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

  get pending(): unknown {
    return pendingOf(this.parts);
  }

  get state(): unknown {
    return this.parts.map(({ state }) => state);
  }

  dispose(): void {
    for (const part of this.parts) part.dispose();
  }
}

function partProblem(part: CacheState, kinds: Kinds): string | null {
  const [state, name] = Array.isArray(part) ? part : [];
  const isPart = Array.isArray(part) && part.length === 2 && state !== undefined && typeof name === "string";
  if (!isPart) return "it is not a state and its kind";
  const kind = kinds(name as string);
  if (!kind) return `${shown(name)} is no kind of cache`;
  const problem = stateProblem(kind, state, kinds);
  return problem && `no state of a ${kind.name}, ${problem}`;
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

  extend(other: BatchCacheList, hasRoom = false): void {
    for (const [i, part] of this.parts.entries()) part.extend(other.parts[i]!, hasRoom);
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
