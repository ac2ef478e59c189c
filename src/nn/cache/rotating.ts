/** The cache of sliding-window attention: the last `maxSize` tokens, and the first `keep`, in a ring. */

import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { Mask, MaskOptions } from "../mask";
import { causalMask } from "../masks";
import { BatchRotatingKVCache } from "./batch-rotating";
import { Buffers, joinRows, rows, step, writeRows, zeroRows } from "./buffer";
import type { KeyValueCache } from "./cache";
import { type CacheKind, type CacheState, columnsProblem, countProblem, firstProblem } from "./kind";

export class RotatingKVCache implements KeyValueCache {
  static readonly kind: CacheKind<RotatingKVCache> = {
    name: "RotatingKVCache",
    fields: ["keys", "values", "offset", "keep", "size limit", "index"],
    problem: (state) => ringProblem(state),
    restore(state) {
      const cache = new RotatingKVCache(1);
      cache.state = state as RotatingState;
      return cache;
    },
    merge: (caches) => BatchRotatingKVCache.merge(caches, (maxSize) => new RotatingKVCache(maxSize)),
  };

  readonly #buffers = new Buffers();
  #offset = 0;
  /** The row that the next single token goes to. */
  #index = 0;

  private keep: number;

  /**
   * Keeps `maxSize` tokens, `keep` of them the very first. One place at least is left for the newest, however many are to
   * be kept: mlx-lm drops new tokens in silence where there is none.
   */
  constructor(
    private maxSize: number,
    keep = 0,
  ) {
    this.keep = Math.min(keep, maxSize - 1);
  }

  get offset(): number {
    return this.#offset;
  }

  get size(): number {
    return Math.min(this.#offset, this.maxSize);
  }

  get nbytes(): number {
    return this.#buffers.nbytes;
  }

  get empty(): boolean {
    return this.#buffers.empty;
  }

  /** One token goes round the ring; several are appended to the tokens in order of time, and the oldest drop out. */
  update(keys: Tensor, values: Tensor): [Tensor, Tensor] {
    return keys.dim(2) === 1 ? this.#rotate(keys, values) : this.#append(keys, values);
  }

  #append(keys: Tensor, values: Tensor): [Tensor, Tensor] {
    this.#buffers.change([keys, values], (buffer, added) => {
      if (!buffer) return added;
      const ordered = this.#inOrderOfTime(buffer);
      // Each of the new tokens still sees maxSize tokens: its own and maxSize − 1 before it.
      return joinRows(...this.#withoutOldest(ordered, ordered.dim(2) - this.maxSize + 1), added);
    });
    this.#offset += keys.dim(2);
    this.#index = this.#buffers.length;
    return [this.#buffers.keys!, this.#buffers.values!];
  }

  #rotate(keys: Tensor, values: Tensor): [Tensor, Tensor] {
    const length = this.#buffers.length;
    const grow = length === 0 || (this.#offset >= length && length < this.maxSize);
    const more = Math.min(step, this.maxSize - this.#offset);
    const excess = (grow ? length + more : length) - this.maxSize;

    const at = excess > 0 ? this.keep : this.row;

    this.#buffers.change([keys, values], (buffer, added) => {
      let room = buffer ?? zeroRows(added, more);
      if (buffer && grow) room = joinRows(buffer, zeroRows(added, more));
      if (excess > 0) room = joinRows(...this.#withoutOldest(room, excess));
      return writeRows(room, at, added);
    });
    this.#offset += 1;
    this.#index = at + 1;
    return this.#buffers.first(this.#offset);
  }

  /** The row that the next single token goes to: behind all others, or that of the oldest. */
  get row(): number {
    return this.#index === this.maxSize ? this.keep : this.#index;
  }

  /**
   * Keys and values for an operation that writes one token to `row` in place; null behind several tokens at once, and where somebody
   * else may hold them.
   */
  get room(): [Tensor, Tensor] | null {
    return this.#buffers.room(this.row, this.maxSize);
  }

  /** Takes the token that `writer` writes to the buffers of `room` when it is evaluated. */
  filledBy(writer: Tensor): void {
    this.#buffers.filledBy(writer);
    this.#index = this.row + 1;
    this.#offset++;
  }

  get pending(): unknown {
    return this.#buffers.pending;
  }

  /** Whether the very first tokens stay while later ones drop out. */
  get keepsFirst(): boolean {
    return this.keep > 0;
  }

  /** How many tokens it keeps. */
  get limit(): number {
    return this.maxSize;
  }

  /** Keys and values (B, Hkv, size, D) that it holds, in order of time; null where it is empty. */
  latest(): [Tensor, Tensor] | null {
    const { keys, values } = this.#buffers;
    if (!keys || !values) return null;
    const last = (buffer: Tensor) => {
      const ordered = this.#inOrderOfTime(buffer);
      return rows(ordered, ordered.dim(2) - this.size, ordered.dim(2));
    };
    return [last(keys), last(values)];
  }

  #inOrderOfTime(buffer: Tensor): Tensor {
    const at = this.#index;
    if (at === buffer.dim(2)) return buffer;
    if (at >= this.#offset) return rows(buffer, 0, at);
    return joinRows(rows(buffer, 0, this.keep), rows(buffer, at), rows(buffer, this.keep, at));
  }

  /** The parts of a buffer in order of time that stay when `count` tokens after the first `keep` go. */
  #withoutOldest(buffer: Tensor, count: number): Tensor[] {
    return count > 0 ? [rows(buffer, 0, this.keep), rows(buffer, count + this.keep)] : [buffer];
  }

  makeMask(length: number, { window, asArray = false }: MaskOptions = {}): Mask {
    if (length > 1) {
      const reach = window || this.maxSize;
      const offset = Math.min(this.maxSize - 1, this.#offset);
      return offset + length > reach || asArray ? causalMask(length, { offset, window: reach }) : "causal";
    }
    if (!window || this.#offset < window || this.maxSize <= window) return null;
    // The window is shorter than the ring: it ends at the row that this token is about to take.
    const at = this.#index >= this.maxSize ? 0 : this.#index;
    const held = Math.min(this.#offset + 1, this.maxSize);
    return mx.roll(mx.arange(held).greaterEqual(held - window), at + 1);
  }

  isTrimmable(more = 0): boolean {
    return this.#offset + more < this.maxSize;
  }

  trim(count: number): number {
    const trimmed = Math.min(this.#offset, count);
    this.#offset -= trimmed;
    this.#index -= trimmed;
    return trimmed;
  }

  /** Keys, values, offset, keep, maxSize, index of the next row. */
  get state(): RotatingState {
    return [this.#buffers.keys, this.#buffers.values, this.#offset, this.keep, this.maxSize, this.#index];
  }

  set state([keys, values, offset, keep, maxSize, index]: RotatingState) {
    this.#buffers.set(keys, values);
    this.#offset = offset;
    this.keep = keep;
    this.maxSize = maxSize;
    this.#index = index;
  }

  dispose(): void {
    this.#buffers.dispose();
    this.#offset = 0;
    this.#index = 0;
  }
}

type RotatingState = [
  keys: Tensor | null,
  values: Tensor | null,
  offset: number,
  keep: number,
  maxSize: number,
  index: number,
];

/** The states that updates and trims can leave behind. */
function ringProblem([keys, values, offset, keep, maxSize, index]: readonly CacheState[]): string | null {
  return firstProblem(
    () => countProblem("offset", offset),
    () => countProblem("size limit", maxSize, 1),
    () => countProblem("keep", keep),
    () => columnsProblem(keys, values, ["index", index]),
    () => {
      if ((keep as number) >= (maxSize as number))
        return `it keeps the first ${keep} tokens, but its size limit is ${maxSize}: no token could follow`;
      const length = (keys as Tensor | null)?.dim(2) ?? 0;
      const grows = (offset as number) <= length && index === offset;
      // A full ring turns. Several tokens at once make it longer until the next one, and put it in order.
      const isFull = length >= (maxSize as number) && (offset as number) >= length;
      const turns = isFull && (length === maxSize ? (index as number) > (keep as number) : index === length);
      return grows || turns ? null : `its index is ${index} after ${offset} tokens in ${length} rows`;
    },
  );
}
