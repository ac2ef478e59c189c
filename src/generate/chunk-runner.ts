/** Computing what a prompt's chunks leave in the caches. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { Cache } from "../models";
import { bytesOf, KVCache, pendingOf } from "../nn";

/** Tokens of a chunk that is worth it. Smaller ones are written where the last one left room, which must not be under way. */
const least = 1024;

/** Bytes of caches that may be copied: where a model's layers have no kernel that writes a token in place. */
const small = 1e9;

/**
 * On CUDA a chunk is put before the GPU while it still computes the one ahead, or it would wait for the host at the
 * beginning of each: 5 ms of 42 where two GPUs read 2,048 tokens.
 */
export class ChunkRunner {
  /** There when the newest chunk has been computed. */
  #newest: Tensor | null = null;
  readonly #resting = mx.activeMemory();

  constructor(private readonly ahead = mx.usesCuda()) {}

  /** Computes what the caches hold now, `tokens` more than before; ahead of that, waits for all chunks but this one. */
  run(cache: readonly Cache[], tokens: number): void {
    if (!this.ahead || tokens < least) {
      this.settle();
      mx.sparingly(() => mx.eval(pendingOf(cache)));
      return;
    }
    const before = this.#newest;
    const newest = mx.scope(() => {
      const state = mx.treeFlatten(pendingOf(cache)).map(([, leaf]) => leaf);
      return mx.depends([mx.array(0)], state)[0]!;
    });
    this.#newest = newest;
    try {
      mx.sparingly(() => mx.asyncEval(newest), this.#resting + bytesOf(cache));
      if (before) mx.eval(before);
    } finally {
      before?.dispose();
    }
  }

  /**
   * Ends a prompt. Waits for the newest chunk unless kernels write the next token in place, which come behind the chunk anyway. Whoever else adds
   * a token would copy the caches' buffers, which MLX holds until then.
   */
  finish(cache: readonly Cache[]): void {
    if (!this.#newest) return;
    const inPlace = bytesOf(cache) < small && cache.every((layer) => layer instanceof KVCache && layer.room !== null);
    if (!inPlace) this.settle();
  }

  /** Waits for the newest chunk. */
  settle(): void {
    const newest = this.#newest;
    this.#newest = null;
    try {
      if (newest) mx.eval(newest);
    } finally {
      newest?.dispose();
    }
  }

  dispose(): void {
    this.#newest?.dispose();
    this.#newest = null;
  }
}
