/** Full attention over a batch of sequences of unequal length: the shorter ones are padded on the left. */
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { Mask, MaskOptions } from "../mask";
import { causalMask, windowedMask } from "../masks";
import { type BatchCache, commonOffset, isPlainFor, paddingOf, plainMask, rollRows } from "./batch";
import { Buffers, type Columns, roomFor, rows, step, writeRows } from "./buffer";
import type { Cache, KeyValueCache } from "./cache";

/** The cache of one sequence that such a batch is made of, and gives back. */
interface Single extends Cache {
  readonly offset: number;
  state: [keys: Tensor | null, values: Tensor | null, offset: number];
}

export class BatchKVCache implements KeyValueCache, BatchCache {
  readonly #buffers = new Buffers();
  /** The column that the next tokens go to. */
  #index = 0;
  /** Columns that are not the row's own, at its beginning. */
  #leftPadding: number[];
  #prepared: readonly number[] | null = null;
  /** Columns of the last update that are not the row's own, at its end. */
  #rightPadding: number[] | null = null;

  /** @param single makes the empty cache of one sequence */
  constructor(
    batchSize: number,
    private readonly single: () => Single,
  ) {
    this.#leftPadding = new Array<number>(batchSize).fill(0);
  }

  /** A batch that begins with what these caches hold, which stay as they are. */
  static merge(caches: readonly Pick<Single, "offset" | "state">[], single: () => Single): BatchKVCache {
    const batch = new BatchKVCache(caches.length, single);
    const length = Math.max(...caches.map(({ offset }) => offset));
    if (length === 0) return batch;
    batch.#leftPadding = caches.map(({ offset }) => length - offset);
    batch.#index = length;
    mx.scope(() => {
      const parts = caches.map(({ state: [keys, values, offset] }) => ({
        keys: keys && rows(keys, 0, offset),
        values: values && rows(values, 0, offset),
        batchSize: 1,
      }));
      batch.#buffers.join(parts, length);
    });
    return batch;
  }

  get batchSize(): number {
    return this.#leftPadding.length;
  }

  /** Columns that are not the row's own, at its beginning. */
  get leftPadding(): readonly number[] {
    return this.#leftPadding;
  }

  /** The columns in order of time: where those in use end, where each row's own begin, and its next token's position. */
  get inOrder() {
    return { used: this.#index, starts: this.#leftPadding, positions: this.lengths };
  }

  /** How many tokens each row holds. */
  get lengths(): readonly number[] {
    return this.#leftPadding.map((padding) => this.#index - padding);
  }

  /** Where rows differ, a new tensor (B) in the current scope. */
  get offset(): number | Tensor {
    return commonOffset(this.lengths);
  }

  get size(): number {
    return this.#index;
  }

  get nbytes(): number {
    return this.#buffers.nbytes;
  }

  get empty(): boolean {
    return this.#buffers.empty;
  }

  update(keys: Tensor, values: Tensor): [Tensor, Tensor] {
    const before = this.#index;
    const count = keys.dim(2);
    this.#buffers.change([keys, values], (buffer, added) => writeRows(roomFor(added, buffer, before), before, added));
    this.#index += count;
    this.#rightPadding = paddingOf(this.#prepared, count);
    return this.#buffers.first(this.#index);
  }

  makeMask(length: number, options: MaskOptions = {}): Mask {
    if (this.#leftPadding.every((padding) => padding === 0)) return windowedMask(length, this.#index, options);
    const leftPadding = mx.array(this.#leftPadding, "int32");
    const mask = causalMask(length, { offset: this.#index, window: options.window, leftPadding });
    return length === 1 && !options.window ? plainMask(mask, this.#leftPadding) : mask;
  }

  /** Whether one token of each row sees all of its own behind this mask, and no padding. */
  isPlain(mask: Mask): boolean {
    if (mask === null) return this.#leftPadding.every((padding) => padding === 0);
    return isPlainFor(mask, this.#leftPadding);
  }

  /**
   * Keys and values (B, Hkv, S, D) with room for one more token of each row, for an operation that writes them to column
   * `size` in place; null where there is no room, or where somebody else may hold them.
   */
  get room(): [Tensor, Tensor] | null {
    return this.#prepared ? null : this.#buffers.room(this.#index);
  }

  /** Takes the tokens that `writer` writes to the buffers of `room` when it is evaluated. */
  filledBy(writer: Tensor): void {
    this.#buffers.filledBy(writer);
    this.#index++;
  }

  prepare(lengths: readonly number[]): void {
    this.#prepared = lengths;
  }

  finalize(): void {
    const padding = this.#rightPadding;
    this.#prepared = this.#rightPadding = null;
    if (!padding) return;
    const all = this.#leftPadding.map((before, row) => before + padding[row]!);
    const cut = Math.min(...all);
    const moved = (buffer: Tensor) => rows(rollRows(rows(buffer, 0, this.#index), padding), cut, this.#index);
    mx.scope(() => this.#buffers.mapOwn((buffer) => mx.contiguous(moved(buffer))));
    this.#leftPadding = all.map((own) => own - cut);
    this.#index -= cut;
  }

  select(chosen: readonly number[]): BatchKVCache {
    const batch = new BatchKVCache(chosen.length, this.single);
    const [padding, cut] = this.#withoutCommon(chosen);
    batch.#leftPadding = padding;
    batch.#index = this.#index - cut;
    if (!this.empty) mx.scope(() => batch.#buffers.setOwn(...this.#buffers.taken(chosen, cut)));
    return batch;
  }

  filter(kept: readonly number[]): void {
    if (kept.length === 0) this.dispose();
    const [padding, cut] = this.#withoutCommon(kept);
    this.#leftPadding = padding;
    this.#index -= cut;
    if (!this.empty) mx.scope(() => this.#buffers.setOwn(...this.#buffers.taken(kept, cut)));
  }

  /** The padding of these rows without the columns that are padding in all of them, and how many those are. */
  #withoutCommon(chosen: readonly number[]): [padding: number[], cut: number] {
    const all = chosen.map((row) => this.#leftPadding[row]!);
    const cut = this.empty ? 0 : Math.min(...all);
    return [all.map((padding) => padding - cut), cut];
  }

  extend(other: BatchKVCache, hasRoom = false): void {
    const index = Math.max(this.#index, other.#index);
    const [own, others] = [this, other].map((part) => part.#leftPadding.map((before) => before + index - part.#index));
    mx.scope(() => {
      this.#buffers.join([this.#columns(), other.#columns()], index, hasRoom ? step : 0);
    });
    this.#leftPadding = [...own!, ...others!];
    this.#index = index;
    other.dispose();
  }

  /** What is in use. */
  #columns(): Columns {
    const { keys, values } = this.#buffers;
    const used = (buffer: Tensor | null) => buffer && rows(buffer, 0, this.#index);
    return { keys: used(keys), values: used(values), batchSize: this.batchSize };
  }

  extract(row: number): Single {
    const cache = this.single();
    if (this.empty) return cache;
    mx.scope(() => {
      cache.state = this.rowState(row);
    });
    return cache;
  }

  /** Copies of one row's keys and values, and how many tokens they are. It must not be empty. */
  rowState(row: number): [keys: Tensor, values: Tensor, length: number] {
    const from = this.#leftPadding[row]!;
    const own = (x: Tensor) => mx.contiguous(rows(mx.sliceAxis(x, 0, row, row + 1), from, this.#index));
    const { keys, values } = this.#buffers;
    return [own(keys!), own(values!), this.#index - from];
  }

  /** Takes so many of each row's oldest tokens out of sight. */
  forget(counts: readonly number[]): void {
    this.#leftPadding = this.#leftPadding.map((before, i) => before + counts[i]!);
    this.#cut(Math.min(...this.#leftPadding));
  }

  /** Drops columns that are no row's own. */
  #cut(count: number): void {
    if (count === 0 || this.empty) return;
    mx.scope(() => this.#buffers.map((buffer) => rows(buffer, count, buffer.dim(2))));
    this.#index -= count;
    this.#leftPadding = this.#leftPadding.map((padding) => padding - count);
  }

  isTrimmable(): boolean {
    return true;
  }

  trim(count: number): number {
    const trimmed = Math.min(this.#index - Math.max(...this.#leftPadding), count);
    this.#index -= trimmed;
    return trimmed;
  }

  get pending(): unknown {
    return this.#buffers.pending;
  }

  get state(): unknown {
    return [this.#buffers.keys, this.#buffers.values, this.#index, [...this.#leftPadding]];
  }

  dispose(): void {
    this.#buffers.dispose();
    this.#index = 0;
    this.#leftPadding = [];
    this.#prepared = this.#rightPadding = null;
  }
}
