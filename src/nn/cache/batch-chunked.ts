/** Attention within chunks over a batch of sequences of unequal length. */
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { Mask } from "../mask";
import { chunkMask } from "../masks";
import { type BatchCache, commonOffset } from "./batch";
import { BatchKVCache } from "./batch-kv";
import { step } from "./buffer";
import type { Cache, ChunkedCache } from "./cache";
import { KVCache } from "./kv";

/** The cache of one sequence that such a batch is made of, and gives back. */
interface Single extends Cache {
  state: [keys: Tensor | null, values: Tensor | null, offset: number, chunkSize: number, start: number];
}

export class BatchChunkedKVCache implements ChunkedCache, BatchCache {
  /**
   * @param starts position of each row's first token that is held
   * @param single makes the empty cache of one sequence
   */
  private constructor(
    private readonly held: BatchKVCache,
    private starts: readonly number[],
    private readonly chunkSize: number,
    private readonly single: (chunkSize: number) => Single,
  ) {}

  /** A batch that begins with copies of what these caches hold. */
  static merge(caches: readonly Single[], single: (chunkSize: number) => Single): BatchChunkedKVCache {
    const states = caches.map(({ state }) => state);
    const chunkSize = states[0]![3];
    const held = BatchKVCache.merge(
      states.map(([keys, values, offset, , start]) => ({
        offset: offset - start,
        state: [keys, values, offset - start],
      })),
      () => new KVCache(),
    );
    return new BatchChunkedKVCache(
      held,
      states.map(([, , , , start]) => start),
      chunkSize,
      single,
    );
  }

  get batchSize(): number {
    return this.held.batchSize;
  }

  /** Where rows differ, a new tensor (B) in the current scope. */
  get offset(): number | Tensor {
    return commonOffset(this.held.lengths.map((length, row) => this.starts[row]! + length));
  }

  get size(): number {
    return this.held.size;
  }

  get nbytes(): number {
    return this.held.nbytes;
  }

  get empty(): boolean {
    return this.held.empty;
  }

  /** Before a forward pass: drops what lies more than a chunk back in each row, many tokens at a time. */
  dropFront(): void {
    const excess = this.held.lengths.map((length) => Math.max(0, length - this.chunkSize));
    if (this.empty || Math.max(...excess) < step) return;
    this.held.forget(excess);
    this.starts = this.starts.map((start, row) => start + excess[row]!);
  }

  update(keys: Tensor, values: Tensor): [Tensor, Tensor] {
    return this.held.update(keys, values);
  }

  makeMask(length: number): Mask {
    const { leftPadding } = this.held;
    // A row's first column lies as many before its first token as it has padding.
    return chunkMask(length, { chunk: this.chunkSize, held: this.size, starts: this.starts, leftPadding });
  }

  prepare(lengths: readonly number[]): void {
    this.held.prepare(lengths);
  }

  finalize(): void {
    this.held.finalize();
  }

  select(chosen: readonly number[]): BatchChunkedKVCache {
    const starts = chosen.map((row) => this.starts[row]!);
    return new BatchChunkedKVCache(this.held.select(chosen), starts, this.chunkSize, this.single);
  }

  filter(kept: readonly number[]): void {
    this.held.filter(kept);
    this.starts = kept.map((row) => this.starts[row]!);
  }

  extend(other: BatchChunkedKVCache, hasRoom = false): void {
    this.held.extend(other.held, hasRoom);
    this.starts = [...this.starts, ...other.starts];
    other.starts = [];
  }

  extract(row: number): Single {
    const cache = this.single(this.chunkSize);
    if (this.empty) return cache;
    const start = this.starts[row]!;
    mx.scope(() => {
      const [keys, values, length] = this.held.rowState(row);
      cache.state = [keys, values, start + length, this.chunkSize, start];
    });
    return cache;
  }

  /** Once tokens were dropped, the beginning of an earlier chunk is not there to go back to. */
  isTrimmable(more = 0): boolean {
    return this.starts.every((start) => start === 0) && this.size + more - this.chunkSize < step;
  }

  trim(count: number): number {
    return this.held.trim(count);
  }

  get state(): unknown {
    return [this.held.state, [...this.starts], this.chunkSize];
  }

  dispose(): void {
    this.held.dispose();
    this.starts = [];
  }
}
