/** Attention within chunks: all tokens of the present chunk, and no more than a chunk's worth before them. */
import type { Tensor } from "../../mlx";
import type { Mask } from "../mask";
import { chunkMask } from "../masks";
import { BatchChunkedKVCache } from "./batch-chunked";
import { Buffers, roomFor, rows, step, writeRows } from "./buffer";
import type { ChunkedCache } from "./cache";
import { type CacheKind, columnsProblem, countProblem, firstProblem } from "./kind";

type State = [keys: Tensor | null, values: Tensor | null, offset: number, chunkSize: number, start: number];

export class ChunkedKVCache implements ChunkedCache {
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
    merge: (caches) => BatchChunkedKVCache.merge(caches, (chunkSize) => new ChunkedKVCache(chunkSize)),
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
    return this.#buffers.empty;
  }

  /**
   * Before a forward pass: drops what lies more than a chunk back. Not token by token, as that would copy the chunk each
   * time; the mask hides what is still there.
   */
  dropFront(): void {
    const excess = this.size - this.chunkSize;
    if (this.empty || excess < step) return;
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

  makeMask(length: number): Mask {
    return chunkMask(length, { chunk: this.chunkSize, held: this.size, starts: [this.#start] });
  }

  /** Once tokens were dropped, the beginning of an earlier chunk is not there to go back to. */
  isTrimmable(more = 0): boolean {
    return this.#start === 0 && this.size + more - this.chunkSize < step;
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
