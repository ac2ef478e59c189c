/** The cache of recurrent layers: a few arrays of state a sequence, of fixed size, for one sequence or a batch. */

import * as mx from "../../mlx";
import { Tensor } from "../../mlx";
import type { BatchCache } from "./batch";
import { type CacheKind, type CacheState, firstProblem, shown } from "./kind";

type State = [arrays: (Tensor | null)[], leftPadding: Tensor | null, lengths: Tensor | null];

/** The arrays are (B, …). They cannot be taken back to an earlier token. */
export class ArraysCache implements BatchCache {
  static readonly kind: CacheKind<ArraysCache> = {
    name: "ArraysCache",
    fields: ["arrays", "left padding", "lengths"],
    problem: ([arrays, leftPadding, lengths]) =>
      firstProblem(
        () => arraysProblem(arrays),
        () => countsProblem("left padding", leftPadding, arrays as (Tensor | null)[]),
        () => countsProblem("lengths", lengths, arrays as (Tensor | null)[]),
      ),
    restore(state) {
      const cache = new ArraysCache(1);
      cache.state = state as State;
      return cache;
    },
    merge: (caches) => ArraysCache.merge(caches),
  };

  #arrays: (Tensor | null)[];
  #batchSize: number;
  /** How many tokens of the update that is under way each row really has. */
  #lengths: readonly number[] | null = null;
  /** How many tokens that are still to come are none of each row's own. */
  #leftPadding: readonly number[] | null;

  /** @param leftPadding how many of the first tokens to come are padding, for each row */
  constructor(count: number, batchSize = 1, leftPadding: readonly number[] | null = null) {
    this.#arrays = new Array<null>(count).fill(null);
    this.#batchSize = batchSize;
    this.#leftPadding = leftPadding;
  }

  /** A batch that begins with copies of what these caches hold; zeros where a row holds nothing yet. */
  static merge(caches: readonly ArraysCache[]): ArraysCache {
    const [first] = caches;
    const batchSize = caches.reduce((sum, cache) => sum + cache.batchSize, 0);
    const batch = new ArraysCache(first!.#arrays.length, batchSize);
    mx.scope(() => batch.#set(first!.#arrays.map((_, i) => joined(caches, i))));
    return batch;
  }

  get batchSize(): number {
    return this.#batchSize;
  }

  get(index: number): Tensor | null {
    return this.#arrays[index]!;
  }

  /** Keeps a new array in a place and gives the old one back to the current scope. */
  put(index: number, array: Tensor): void {
    this.#set(this.#arrays.map((old, i) => (i === index ? array : old)));
  }

  #set(arrays: (Tensor | null)[]): void {
    const before = this.#arrays.filter((old) => !arrays.includes(old));
    mx.keep(arrays.filter((array) => !this.#arrays.includes(array)));
    mx.release(before);
    this.#arrays = arrays;
  }

  /** How many of so many tokens are each row's own; null for all. */
  lengthsWithin(length: number): readonly number[] | null {
    if (!this.#lengths?.some((own) => own < length)) return null;
    return this.#lengths.map((own) => Math.min(Math.max(own, 0), length));
  }

  /** Which of so many tokens are a row's own, (B, T); null for all. */
  makeMask(length: number): Tensor | null {
    const places = mx.arange(length);
    const perRow = (counts: readonly number[]) => mx.array(counts, "int32", [this.#batchSize, 1]);
    const lengths = this.lengthsWithin(length);
    const ended = lengths && places.less(perRow(lengths));
    if (!this.#leftPadding?.some((padding) => padding > 0)) return ended;
    const begun = places.greaterEqual(perRow(this.#leftPadding));
    return ended ? begun.bitwiseAnd(ended) : begun;
  }

  prepare(lengths: readonly number[]): void {
    this.#lengths = lengths;
  }

  /** So many tokens have been read. */
  advance(count: number): void {
    this.#lengths = this.#lengths?.map((own) => own - count) ?? null;
    this.#leftPadding = this.#leftPadding?.map((padding) => padding - count) ?? null;
  }

  finalize(): void {
    this.#lengths = this.#leftPadding = null;
  }

  select(chosen: readonly number[]): ArraysCache {
    const leftPadding = this.#leftPadding && chosen.map((row) => this.#leftPadding![row]!);
    const batch = new ArraysCache(this.#arrays.length, chosen.length, leftPadding);
    mx.scope(() => batch.#set(this.#arrays.map((array) => array && mx.take(array, chosen, { axis: 0 }))));
    return batch;
  }

  filter(kept: readonly number[]): void {
    mx.scope(() => this.#set(this.#arrays.map((array) => array && mx.take(array, kept, { axis: 0 }))));
    this.#leftPadding = this.#leftPadding && kept.map((row) => this.#leftPadding![row]!);
    this.#batchSize = kept.length;
  }

  extend(other: ArraysCache): void {
    mx.scope(() => this.#set(this.#arrays.map((_, i) => joined([this, other], i))));
    this.#leftPadding = joinedPadding([this, other]);
    this.#batchSize += other.#batchSize;
    other.dispose();
  }

  /** Padding that is still to come; null for none. */
  get leftPadding(): readonly number[] | null {
    return this.#leftPadding;
  }

  extract(row: number): ArraysCache {
    const cache = new ArraysCache(this.#arrays.length);
    mx.scope(() => {
      cache.#set(this.#arrays.map((array) => array && mx.contiguous(mx.sliceAxis(array, 0, row, row + 1))));
    });
    return cache;
  }

  get size(): number {
    return 0;
  }

  get nbytes(): number {
    return this.#arrays.reduce((sum, array) => sum + (array?.nbytes ?? 0), 0);
  }

  get empty(): boolean {
    return this.#arrays[0] === null;
  }

  isTrimmable(): boolean {
    return false;
  }

  trim(): number {
    return 0;
  }

  /** The arrays. Padding and lengths, which mlx-lm keeps beside them, are not set between two updates. */
  get state(): State {
    return [this.#arrays, null, null];
  }

  set state([arrays, leftPadding, lengths]: State) {
    this.#set(arrays);
    this.#batchSize = arrays.find((array) => array)?.dim(0) ?? leftPadding?.size ?? lengths?.size ?? 1;
    this.#leftPadding = (leftPadding?.toList() as number[] | undefined) ?? null;
    this.#lengths = (lengths?.toList() as number[] | undefined) ?? null;
  }

  dispose(): void {
    this.#set(this.#arrays.map(() => null));
    this.#batchSize = 0;
    this.#lengths = this.#leftPadding = null;
  }
}

function joinedPadding(caches: readonly ArraysCache[]): number[] | null {
  if (caches.every(({ leftPadding }) => leftPadding === null)) return null;
  return caches.flatMap(({ leftPadding, batchSize }) => leftPadding ?? new Array<number>(batchSize).fill(0));
}

function arraysProblem(arrays: CacheState | undefined): string | null {
  if (!Array.isArray(arrays) || arrays.length === 0) return `its arrays are ${shown(arrays)}, not a list of tensors`;
  const strange = arrays.findIndex((one) => one !== null && !(one instanceof Tensor && one.ndim > 0));
  if (strange >= 0) return `its array ${strange} is ${shown(arrays[strange])}, not a tensor of rows`;
  const batches = new Set((arrays as (Tensor | null)[]).map((one) => one?.dim(0)).filter((rows) => rows !== undefined));
  if (batches.size > 1 || batches.has(0)) return `its arrays have ${[...batches].join(" and ")} rows`;
  return null;
}

/** Whole numbers, one for each row, or none. */
function countsProblem(name: string, counts: CacheState | undefined, arrays: (Tensor | null)[]): string | null {
  if (counts === null) return null;
  const rows = arrays.find((one) => one)?.dim(0) ?? 1;
  const fits = counts instanceof Tensor && counts.dtype === "int32" && counts.ndim === 1 && counts.dim(0) === rows;
  return fits ? null : `its ${name} is ${shown(counts)}, not ${rows} whole numbers`;
}

/** One place of several caches, one behind the other; null where all are empty. */
function joined(caches: readonly ArraysCache[], index: number): Tensor | null {
  const like = caches.map((cache) => cache.get(index)).find((array) => array);
  if (!like) return null;
  const rest = like.shape.slice(1);
  const parts = caches.map((cache) => cache.get(index) ?? mx.zeros([cache.batchSize, ...rest], like.dtype));
  return mx.concatenate(parts, { axis: 0 });
}
