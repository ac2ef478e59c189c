/** Attention within chunks: all tokens of the present chunk, and no more than a chunk's worth before them. */
import type { Tensor } from "../../mlx";
import type { Mask, MaskOptions } from "../mask";
import { windowedMask } from "../masks";
import { Buffers, roomFor, rows, writeRows } from "./buffer";
import type { KeyValueCache } from "./cache";
import { type CacheKind, columnsProblem, countProblem, firstProblem } from "./kind";

type State = [keys: Tensor | null, values: Tensor | null, offset: number, chunkSize: number, start: number];

export class ChunkedKVCache implements KeyValueCache {
  static readonly kind: CacheKind<ChunkedKVCache> = {
    name: "ChunkedKVCache",
    fields: ["keys", "values", "offset", "chunk size", "start"],
    problem: ([keys, values, offset, chunkSize, start]) =>
      firstProblem(
        () => countProblem("chunk size", chunkSize, 1),
        () => countProblem("start", start),
        () => countProblem("offset", offset, start as number),
        () => columnsProblem(keys, values, ["number of tokens", (offset as number) - (start as number)]),
      ),
    restore(state) {
      const cache = new ChunkedKVCache(1);
      cache.state = state as State;
      return cache;
    },
  };

  readonly #buffers = new Buffers();
  #offset = 0;
  /** The first token that is still held. */
  #start = 0;

  constructor(private chunkSize: number) {}

  get offset(): number {
    return this.#offset;
  }

  /** The position of the first token that is held. */
  get start(): number {
    return this.#start;
  }

  get size(): number {
    return this.#offset - this.#start;
  }

  get nbytes(): number {
    return this.#buffers.nbytes;
  }

  get empty(): boolean {
    return this.#buffers.keys === null;
  }

  /** Before a forward pass: drops what lies more than a chunk back. */
  dropFront(): void {
    const excess = this.size - this.chunkSize;
    if (this.empty || excess <= 0) return;
    const { keys, values } = this.#buffers;
    this.#buffers.set(rows(keys!, excess, this.size), rows(values!, excess, this.size));
    this.#start += excess;
  }

  update(keys: Tensor, values: Tensor): [Tensor, Tensor] {
    const before = this.size;
    this.#buffers.change([keys, values], (buffer, added) => writeRows(roomFor(added, buffer, before), before, added));
    this.#offset += keys.dim(2);
    return this.#buffers.first(this.size);
  }

  makeMask(length: number, options: MaskOptions = {}): Mask {
    return windowedMask(length, this.size, options);
  }

  isTrimmable(): boolean {
    return true;
  }

  trim(count: number): number {
    const trimmed = Math.min(this.size, count);
    this.#offset -= trimmed;
    return trimmed;
  }

  /** Keys, values (with their unused rows), offset, chunk size, the first token that is held. */
  get state(): State {
    return [this.#buffers.keys, this.#buffers.values, this.#offset, this.chunkSize, this.#start];
  }

  set state([keys, values, offset, chunkSize, start]: State) {
    this.#buffers.set(keys, values);
    this.#offset = offset;
    this.chunkSize = chunkSize;
    this.#start = start;
  }

  dispose(): void {
    this.#buffers.dispose();
    this.#offset = this.#start = 0;
  }
}
