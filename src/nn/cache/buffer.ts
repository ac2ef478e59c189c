/** The pair of buffers behind a key-value cache: kept tensors (B, Hkv, S, D), replaced as wholes. */

import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";

/** Rows are added by this many at a time, so that most writes find room. */
export const step = 256;

/** `x[..., from:to, :]`, with Python's meaning of negative and absent bounds. */
export function rows(x: Tensor, from?: number, to?: number): Tensor {
  // Every layer and step comes through here: what needs no planning gets none.
  if (from !== undefined && to !== undefined && from >= 0 && to >= from) return mx.sliceAxis(x, 2, from, to);
  return x.at(mx.ellipsis, mx.slice(from, to), ":");
}

export function joinRows(...parts: Tensor[]): Tensor {
  return mx.concatenate(parts, { axis: 2 });
}

/** `count` rows of zeros in the shape and dtype of `like`. */
export function zeroRows(like: Tensor, count: number): Tensor {
  const [batch, heads, , dims] = like.shape as [number, number, number, number];
  return mx.zeros([batch, heads, count, dims], like.dtype);
}

/** The buffer with `values` written from row `at` on. Its memory is reused where the old buffer is freed before eval. */
export function writeRows(x: Tensor, at: number, values: Tensor): Tensor {
  return mx.updateAxis(x, values, 2, at);
}

/** The buffer, grown by blocks where `added` does not fit behind its first `used` rows. */
export function roomFor(added: Tensor, buffer: Tensor | null, used: number): Tensor {
  const count = added.dim(2);
  if (buffer && used + count <= buffer.dim(2)) return buffer;
  const more = zeroRows(added, Math.ceil(count / step) * step);
  if (!buffer) return more;
  // What lies behind a `trim` in a full buffer is cut off first.
  return joinRows(used % step === 0 ? buffer : rows(buffer, 0, used), more);
}

/** A copy of these sequences of x. Slices take a GPU a seventh of the time of a gather; a single one would be no copy. */
function copyOf(x: Tensor, sequences: readonly number[]): Tensor {
  if (sequences.length === 1) return mx.take(x, sequences, { axis: 0 });
  const middle = sequences.length >> 1;
  const begins = (i: number) => i === 0 || i === middle || sequences[i] !== sequences[i - 1]! + 1;
  const starts = sequences.flatMap((_, i) => (begins(i) ? [i] : []));
  const slices = starts.map((start, i) => {
    const first = sequences[start]!;
    return mx.sliceAxis(x, 0, first, first + (starts[i + 1] ?? sequences.length) - start);
  });
  return mx.concatenate(slices, { axis: 0 });
}

/** Keys and values of some sequences; null where they hold nothing. */
export interface Columns {
  keys: Tensor | null;
  values: Tensor | null;
  batchSize: number;
}

/**
 * All sequences as one batch, with zeros before the shorter ones and `room` more rows behind all; null where none holds anything. New
 * tensors, but for one that fills all by itself.
 * @throws MlxError for caches of different models
 */
function joinBatches(parts: readonly Columns[], length: number, room = 0): [Tensor, Tensor] | null {
  if (parts.every(({ keys }) => !keys)) return null;
  const sequences = parts.reduce((count, { batchSize }) => count + batchSize, 0);
  const joined = (which: "keys" | "values") => {
    const held = parts.flatMap(({ [which]: own }) => own ?? []);
    const [{ shape }] = held as [Tensor, ...Tensor[]];
    const [, heads, , dims] = shape as [number, number, number, number];
    const other = held.find((own) => own.dim(1) !== heads || own.dim(3) !== dims);
    if (other) throw new mx.MlxError(`caches of shapes (${shape}) and (${other.shape}) are of different models`);
    let all = mx.zeros([sequences, heads, length + room, dims], held.map(({ dtype }) => dtype).reduce(mx.promoteTypes));
    let first = 0;
    for (const { [which]: own, batchSize } of parts) {
      if (own) all = mx.updateBlock(all, own, [first, 0, length - own.dim(2), 0]);
      first += batchSize;
    }
    return all;
  };
  return [joined("keys"), joined("values")];
}

export class Buffers {
  #keys: Tensor | null = null;
  #values: Tensor | null = null;
  /** Whether nobody else holds them, so that rows may be written in place. */
  #areOwn = false;
  /** What writes the newest row in place when it is evaluated. */
  #writer: Tensor | null = null;
  /** Whether a step may read them that writes no row in place. */
  #isRead = false;

  /** Whoever reads these may hold them. */
  get keys(): Tensor | null {
    this.#share();
    return this.#keys;
  }

  get values(): Tensor | null {
    this.#share();
    return this.#values;
  }

  get empty(): boolean {
    return this.#keys === null;
  }

  /** Rows allocated. */
  get length(): number {
    return this.#keys?.dim(2) ?? 0;
  }

  get nbytes(): number {
    return (this.#keys?.nbytes ?? 0) + (this.#values?.nbytes ?? 0);
  }

  /** Both, for who computes them and lets them go. */
  get pending(): (Tensor | null)[] {
    this.#awaitWriter();
    return [this.#keys, this.#values];
  }

  /**
   * Keys and values for an operation that writes their row `row` in place; null where somebody else may hold them.
   * @param ring how many rows there ever are, where each is replaced in its turn
   */
  room(row: number, ring = Number.POSITIVE_INFINITY): [Tensor, Tensor] | null {
    // A single row that is replaced is the one that was given. Behind several tokens at once there are more rows than the ring's.
    if (!this.#areOwn || ring === 1 || this.length > ring) return null;
    // What reads rows that will be replaced, and writes none, is known to nobody until it is on its way.
    if (ring < Number.POSITIVE_INFINITY && this.#isRead && !mx.isScheduled(this.#keys!)) return null;
    this.#isRead = false;
    if (row >= this.length) this.#grow(Math.min(step, ring - this.length));
    // A token that does not come from the last step's answer leads nowhere else to what writes the row before.
    if (this.#writer && !mx.isScheduled(this.#writer)) this.#awaitWriter();
    return [this.#keys!, this.#values!];
  }

  #grow(count: number): void {
    this.#awaitWriter();
    const grown = (buffer: Tensor) => joinRows(buffer, zeroRows(buffer, count));
    mx.scope(() => this.setOwn(grown(this.#keys!), grown(this.#values!)));
  }

  /** A row of `room` is written when `writer` is evaluated. */
  filledBy(writer: Tensor): void {
    const last = this.#writer;
    this.#writer = mx.keep(writer);
    if (last) mx.release(last);
  }

  /** From here on the buffers are evaluated after what writes to them, and no row is written in place. */
  #share(): void {
    this.#areOwn = false;
    this.#awaitWriter();
  }

  #awaitWriter(): void {
    const [keys, values, writer] = [this.#keys, this.#values, this.#writer];
    if (!writer || !keys || !values) return;
    // A CUDA graph orders its nodes by what they give, and these rows are written behind its back: so in a graph ahead.
    if (mx.defaultDevice() !== "cpu") mx.asyncEval(writer);
    this.#replace(...(mx.depends([keys, values], [writer]) as [Tensor, Tensor]));
  }

  /**
   * Keeps new buffers and gives the old ones back to the current scope: MLX writes in place only if nothing else
   * holds the old array when the graph is evaluated.
   */
  set(keys: Tensor | null, values: Tensor | null): void {
    this.#replace(keys, values);
    this.#areOwn = false;
  }

  /** The same of new buffers that nobody else will hold. */
  setOwn(keys: Tensor, values: Tensor): void {
    this.#replace(keys, values);
    this.#areOwn = true;
    this.#isRead = false;
  }

  /** The sequences of all parts as one batch, as `joinBatches` makes it. */
  join(parts: readonly Columns[], length: number, room = 0): void {
    const joined = joinBatches(parts, length, room);
    // Those of one part alone may be its own.
    const areNew = parts.filter(({ batchSize }) => batchSize > 0).length > 1;
    if (joined && areNew) this.setOwn(...joined);
    else if (joined) this.set(...joined);
  }

  #replace(keys: Tensor | null, values: Tensor | null): void {
    const old = [this.#keys, this.#values, this.#writer];
    mx.keep([keys, values]);
    mx.release(old);
    this.#keys = keys;
    this.#values = values;
    this.#writer = null;
  }

  /** Writes to both, as MLX's operations do: `added` are the new keys and values. */
  change(added: readonly [Tensor, Tensor], next: (buffer: Tensor | null, added: Tensor) => Tensor): void {
    this.set(next(this.keys, added[0]), next(this.values, added[1]));
    this.#areOwn = this.#isRead = true;
  }

  /** The same change to both. They must not be empty. */
  map(next: (buffer: Tensor) => Tensor): void {
    this.set(next(this.keys!), next(this.values!));
  }

  /** The same where `next` gives new buffers, which nobody else will hold. */
  mapOwn(next: (buffer: Tensor) => Tensor): void {
    this.setOwn(next(this.keys!), next(this.values!));
  }

  /** Copies of both, of these sequences alone and without their first `from` rows. They must not be empty. */
  taken(sequences: readonly number[], from = 0): [Tensor, Tensor] {
    const copy = (x: Tensor) => copyOf(rows(x, from, x.dim(2)), sequences);
    return [copy(this.keys!), copy(this.values!)];
  }

  /** Both, up to a row, for an operation that sees no later one. They must not be empty, and have been changed last. */
  first(length: number): [Tensor, Tensor] {
    const [keys, values] = [this.#keys!, this.#values!];
    return length < this.length ? [rows(keys, 0, length), rows(values, 0, length)] : [keys, values];
  }

  dispose(): void {
    this.set(null, null);
  }
}
