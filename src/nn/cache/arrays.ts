/** The cache of recurrent layers: a few arrays of state a sequence, of fixed size, for one sequence or a batch. */
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { BatchCache } from "./batch";

type State = [arrays: (Tensor | null)[], leftPadding: Tensor | null, lengths: Tensor | null];

/** The arrays are (B, …). They cannot be taken back to an earlier token. */
export class ArraysCache implements BatchCache {
  #arrays: (Tensor | null)[];
  #batchSize: number;
  /** How many tokens of the update that is under way each row really has. */
  #lengths: readonly number[] | null = null;

  constructor(count: number, batchSize = 1) {
    this.#arrays = new Array<null>(count).fill(null);
    this.#batchSize = batchSize;
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
    const lengths = this.lengthsWithin(length);
    return lengths && mx.arange(length).less(mx.array(lengths, "int32", [this.#batchSize, 1]));
  }

  prepare(lengths: readonly number[]): void {
    this.#lengths = lengths;
  }

  /** So many tokens have been read. */
  advance(count: number): void {
    this.#lengths = this.#lengths?.map((own) => own - count) ?? null;
  }

  finalize(): void {
    this.#lengths = null;
  }

  select(chosen: readonly number[]): ArraysCache {
    const batch = new ArraysCache(this.#arrays.length, chosen.length);
    mx.scope(() => batch.#set(this.#arrays.map((array) => array && mx.take(array, chosen, { axis: 0 }))));
    return batch;
  }

  filter(kept: readonly number[]): void {
    mx.scope(() => this.#set(this.#arrays.map((array) => array && mx.take(array, kept, { axis: 0 }))));
    this.#batchSize = kept.length;
  }

  extend(other: ArraysCache): void {
    mx.scope(() => this.#set(this.#arrays.map((_, i) => joined([this, other], i))));
    this.#batchSize += other.#batchSize;
    other.dispose();
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

  /** The arrays; the padding and lengths that mlx-lm keeps beside them are never set between two updates. */
  get state(): State {
    return [this.#arrays, null, null];
  }

  set state([arrays]: State) {
    this.#set(arrays);
    this.#batchSize = arrays.find((array) => array)?.dim(0) ?? 1;
  }

  dispose(): void {
    this.#set(this.#arrays.map(() => null));
    this.#batchSize = 0;
  }
}

/** One place of several caches, one behind the other; null where all are empty. */
function joined(caches: readonly ArraysCache[], index: number): Tensor | null {
  const like = caches.map((cache) => cache.get(index)).find((array) => array);
  if (!like) return null;
  const rest = like.shape.slice(1);
  const parts = caches.map((cache) => cache.get(index) ?? mx.zeros([cache.batchSize, ...rest], like.dtype));
  return mx.concatenate(parts, { axis: 0 });
}
