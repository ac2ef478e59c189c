/** Sliding-window attention over a batch: one ring for all rows, in which shorter ones have empty places at first. */
import { UserError } from "../../errors";
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { Mask, MaskOptions } from "../mask";
import { causalMask } from "../masks";
import { type BatchCache, commonOffset, isPlainFor, paddingOf, plainMask, rollRows } from "./batch";
import { Buffers, type Columns, joinRows, rows, step, writeRows, zeroRows } from "./buffer";
import type { Cache, KeyValueCache } from "./cache";

/** The cache of one sequence that such a batch is made of, and gives back. */
interface Ring extends Cache {
  readonly offset: number;
  readonly limit: number;
  latest(): [keys: Tensor, values: Tensor] | null;
  state: [keys: Tensor | null, values: Tensor | null, offset: number, keep: number, maxSize: number, index: number];
}

/** Makes the empty cache of one sequence. */
type MakeRing = (maxSize: number) => Ring;

interface Row {
  /** How many tokens have passed. */
  offset: number;
  /** How many of them lie in the buffer: the newest. What comes before is padding. */
  held: number;
}

export class BatchRotatingKVCache implements KeyValueCache, BatchCache {
  readonly #buffers = new Buffers();
  #rows: Row[];
  /** Places in use. More than `maxSize` after several tokens at once, as each of those sees `maxSize` tokens. */
  #used = 0;
  /** Where the oldest of them lies, once the ring is full. */
  #oldest = 0;
  #lengths: readonly number[] | null = null;
  #rightPadding: number[] | null = null;

  constructor(
    private readonly maxSize: number,
    batchSize: number,
    private readonly single: MakeRing,
  ) {
    this.#rows = Array.from({ length: batchSize }, () => ({ offset: 0, held: 0 }));
  }

  /**
   * A batch that begins with what these caches hold, which stay as they are. The first tokens that a cache keeps stay in it until newer
   * ones take their places.
   */
  static merge(caches: readonly Ring[], single: MakeRing): BatchRotatingKVCache {
    const { limit } = caches[0]!;
    if (caches.some((cache) => cache.limit !== limit)) {
      throw new UserError("these caches have no batched form: they hold different numbers of tokens", {
        hint: "Caches with the same --max-kv-size can be in one batch.",
      });
    }
    const batch = new BatchRotatingKVCache(limit, caches.length, single);
    batch.#used = Math.max(...caches.map(({ size }) => size));
    if (batch.#used === 0) return batch;
    batch.#rows = caches.map(({ offset, size }) => ({ offset, held: size }));
    mx.scope(() => {
      const parts = caches.map((cache) => {
        const [keys = null, values = null] = cache.latest() ?? [];
        return { keys, values, batchSize: 1 };
      });
      batch.#buffers.join(parts, batch.#used);
    });
    return batch;
  }

  get batchSize(): number {
    return this.#rows.length;
  }

  /** Where rows differ, a new tensor (B) in the current scope. */
  get offset(): number | Tensor {
    return commonOffset(this.#rows.map(({ offset }) => offset));
  }

  get size(): number {
    return Math.min(this.#used, this.maxSize);
  }

  get nbytes(): number {
    return this.#buffers.nbytes;
  }

  get empty(): boolean {
    return this.#buffers.empty;
  }

  /** One token goes round the ring; several are appended to the tokens in order of time, and the oldest drop out. */
  update(keys: Tensor, values: Tensor): [Tensor, Tensor] {
    const count = keys.dim(2);
    const latest = count === 1 ? this.#rotate(keys, values) : this.#append(keys, values);
    this.#rightPadding = paddingOf(this.#lengths, count);
    return latest;
  }

  #append(keys: Tensor, values: Tensor): [Tensor, Tensor] {
    const count = keys.dim(2);
    this.#keepLatest(this.maxSize - 1);
    this.#buffers.change([keys, values], (buffer, added) => (buffer ? joinRows(buffer, added) : added));
    this.#used += count;
    this.#rows = this.#rows.map(({ offset, held }) => ({ offset: offset + count, held: held + count }));
    return [this.#buffers.keys!, this.#buffers.values!];
  }

  #rotate(keys: Tensor, values: Tensor): [Tensor, Tensor] {
    if (this.#used > this.maxSize) this.#keepLatest(this.maxSize);
    const at = this.#isFull ? this.#oldest : this.#used;
    this.#buffers.change([keys, values], (buffer, added) => {
      if (buffer && at < buffer.dim(2)) return writeRows(buffer, at, added);
      const more = zeroRows(added, Math.min(step, this.maxSize - at));
      return writeRows(buffer ? joinRows(buffer, more) : more, at, added);
    });
    this.#addToken();
    return this.#buffers.first(this.#used);
  }

  /** Counts a token that takes the place of the oldest one, or the next. */
  #addToken(): void {
    if (this.#isFull) this.#oldest = (this.#oldest + 1) % this.maxSize;
    else this.#used += 1;
    this.#rows = this.#rows.map(({ offset, held }) => ({ offset: offset + 1, held: Math.min(held + 1, this.#used) }));
  }

  get #isFull(): boolean {
    return this.#used === this.maxSize;
  }

  /**
   * The places in order of time, from one round of the ring to the next: where those end that the next token sees beside its own, where
   * each row's begin, and the token's position.
   */
  get inOrder() {
    const used = this.#isFull ? this.#oldest + this.maxSize : this.#used;
    const seen = this.#isFull ? this.maxSize - 1 : this.#used;
    return {
      used,
      starts: this.#rows.map(({ held }) => used - Math.min(held, seen)),
      positions: this.#rows.map(({ offset }) => offset),
    };
  }

  /**
   * Keys and values (B, Hkv, S, D) with a place for one more token of each row, for an operation that writes them there in place; null
   * behind several tokens at once, and where somebody else may hold them.
   */
  get room(): [Tensor, Tensor] | null {
    if (this.#lengths) return null;
    return this.#buffers.room(this.#isFull ? this.#oldest : this.#used, this.maxSize);
  }

  /** Takes the tokens that `writer` writes to the buffers of `room` when it is evaluated. */
  filledBy(writer: Tensor): void {
    this.#buffers.filledBy(writer);
    this.#addToken();
  }

  /** Brings the places into order of time and drops the oldest beyond so many, and what is not in use. */
  #keepLatest(count: number): void {
    const used = Math.min(this.#used, count);
    if (!this.empty) {
      this.#buffers.map((buffer) => {
        const own = rows(buffer, 0, this.#used);
        const ordered = this.#oldest > 0 ? mx.roll(own, -this.#oldest, { axis: 2 }) : own;
        return rows(ordered, this.#used - used, this.#used);
      });
    }
    this.#used = used;
    this.#oldest = 0;
    this.#rows = this.#rows.map(({ offset, held }) => ({ offset, held: Math.min(held, used) }));
  }

  makeMask(length: number, { window, asArray = false }: MaskOptions = {}): Mask {
    const reach = window || this.maxSize;
    if (length === 1) return this.#maskOfOne(reach);
    const kept = Math.min(this.#used, this.maxSize - 1);
    const leftPadding = this.#rows.map(({ held }) => kept - Math.min(held, kept));
    const isPadded = leftPadding.some((padding) => padding > 0);
    if (!isPadded && !asArray && kept + length <= reach) return "causal";
    return causalMask(length, {
      offset: kept,
      window: reach,
      leftPadding: isPadded ? mx.array(leftPadding, "int32") : undefined,
    });
  }

  /** Which places one token sees that is about to be written: null for all. */
  #maskOfOne(reach: number): Mask {
    const places = Math.min(this.#used + 1, this.maxSize);
    const seen = this.#rows.map(({ held }) => Math.min(held + 1, places, reach));
    if (seen.every((count) => count === places)) return null;
    const first = mx.array(
      seen.map((count) => places - count),
      "int32",
      [seen.length, 1, 1, 1],
    );
    const inOrder = mx.arange(places).greaterEqual(first);
    // In a full ring the oldest place is the one that the token takes.
    const isFull = this.#used >= this.maxSize;
    const oldest = this.#used > this.maxSize ? 0 : this.#oldest;
    const mask = isFull ? mx.roll(inOrder, oldest + 1, { axis: -1 }) : inOrder;
    return reach >= places ? plainMask(mask, this.#ownPlaces) : mask;
  }

  /** All that decides which places a row's next token sees. */
  get #ownPlaces(): readonly number[] {
    return [this.#used, this.#oldest, this.maxSize, ...this.#rows.map(({ held }) => held)];
  }

  /** Whether one token of each row sees all of its own behind this mask, and nothing else. */
  isPlain(mask: Mask): boolean {
    const places = Math.min(this.#used + 1, this.maxSize);
    if (mask === null) return this.#rows.every(({ held }) => held + 1 >= places);
    return isPlainFor(mask, this.#ownPlaces);
  }

  prepare(lengths: readonly number[]): void {
    this.#lengths = lengths;
  }

  finalize(): void {
    const padding = this.#rightPadding;
    this.#lengths = this.#rightPadding = null;
    if (!padding) return;
    mx.scope(() => this.#buffers.map((buffer) => rollRows(rows(buffer, 0, this.#used), padding)));
    this.#rows = this.#rows.map(({ offset, held }, i) => ({ offset: offset - padding[i]!, held: held - padding[i]! }));
  }

  select(chosen: readonly number[]): BatchRotatingKVCache {
    const batch = new BatchRotatingKVCache(this.maxSize, chosen.length, this.single);
    batch.#rows = chosen.map((row) => this.#rows[row]!);
    [batch.#used, batch.#oldest] = [this.#used, this.#oldest];
    if (!this.empty) mx.scope(() => batch.#buffers.setOwn(...this.#buffers.taken(chosen)));
    return batch;
  }

  filter(kept: readonly number[]): void {
    if (kept.length === 0) this.dispose();
    this.#rows = kept.map((row) => this.#rows[row]!);
    if (!this.empty) mx.scope(() => this.#buffers.setOwn(...this.#buffers.taken(kept)));
  }

  extend(other: BatchRotatingKVCache, hasRoom = false): void {
    mx.scope(() => {
      for (const part of [this, other]) part.#keepLatest(this.maxSize);
      const used = Math.max(this.#used, other.#used);
      const room = hasRoom ? Math.min(step, this.maxSize - used) : 0;
      this.#buffers.join([this.#columns(), other.#columns()], used, room);
      this.#used = used;
    });
    this.#rows = [...this.#rows, ...other.#rows];
    other.dispose();
  }

  #columns(): Columns {
    return { keys: this.#buffers.keys, values: this.#buffers.values, batchSize: this.batchSize };
  }

  extract(row: number): Ring {
    const cache = this.single(this.maxSize);
    if (this.empty) return cache;
    const { offset, held } = this.#rows[row]!;
    mx.scope(() => {
      const own = (x: Tensor) => {
        const places = rows(mx.sliceAxis(x, 0, row, row + 1), 0, this.#used);
        const ordered = this.#oldest > 0 ? mx.roll(places, -this.#oldest, { axis: 2 }) : places;
        return mx.contiguous(rows(ordered, this.#used - held, this.#used));
      };
      const { keys, values } = this.#buffers;
      cache.state = [own(keys!), own(values!), offset, 0, this.maxSize, held];
    });
    return cache;
  }

  isTrimmable(more = 0): boolean {
    return this.#rows.every(({ offset, held }) => offset === held) && this.#used + more < this.maxSize;
  }

  trim(count: number): number {
    const trimmed = Math.min(count, ...this.#rows.map(({ held }) => held));
    this.#used -= trimmed;
    this.#rows = this.#rows.map(({ offset, held }) => ({ offset: offset - trimmed, held: held - trimmed }));
    return trimmed;
  }

  get pending(): unknown {
    return this.#buffers.pending;
  }

  get state(): unknown {
    const { keys, values } = this.#buffers;
    return [keys, values, this.maxSize, this.#used, this.#oldest, this.#rows.map(({ offset, held }) => [offset, held])];
  }

  dispose(): void {
    this.#buffers.dispose();
    this.#rows = [];
    this.#used = this.#oldest = 0;
    this.#lengths = this.#rightPadding = null;
  }
}
