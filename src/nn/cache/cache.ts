/** What every layer's memory of a sequence can do. */
import type { Tensor } from "../../mlx";
import type { Mask, MaskOptions } from "../mask";
import type { KvQuantization, Rows } from "./rows";

/** The state that one layer carries from one forward pass to the next. Changed in place, freed by `dispose`. */
export interface Cache {
  /** All that makes up the cache, as a tree: its tensors, and numbers that say how to read them. For `eval` and files. */
  state: unknown;
  /**
   * The same, for who computes it and lets it go. Who asks for `state` may keep it, and no row is written in place from then on. Absent:
   * `state`.
   */
  readonly pending?: unknown;
  /** How many tokens can be read back. */
  readonly size: number;
  /** Bytes of its buffers. */
  readonly nbytes: number;
  readonly empty: boolean;
  /** Whether `trim` works in the present state, and after so many more tokens. */
  isTrimmable(more?: number): boolean;
  /** Forgets the last `count` tokens, or as many as there are, and returns how many. */
  trim(count: number): number;
  dispose(): void;
}

/** What caches hold, to be computed and let go. */
export const pendingOf = (caches: readonly Cache[]): unknown[] => caches.map((cache) => cache.pending ?? cache.state);

/** Bytes of all their buffers. */
export const bytesOf = (caches: readonly Cache[]) => caches.reduce((sum, { nbytes }) => sum + nbytes, 0);

/** A cache of attention's keys and values. */
export interface KeyValueCache extends Cache {
  /**
   * How many tokens have passed: the position of the next one. A tensor (B) where the rows of a batch differ; (B, T), one for each token that comes, where
   * they are packed with several samples.
   */
  readonly offset: number | Tensor;
  /** How its rows are packed, where they are. */
  readonly quantization?: KvQuantization;
  /**
   * Appends keys and values (B, Hkv, T, D) and returns all that the T new tokens may attend to, (B, Hkv, S, D). They
   * belong to the current scope or the cache. `attention` takes either kind.
   */
  update(keys: Tensor, values: Tensor): [keys: Rows, values: Rows];
  /** The mask for `length` tokens that are about to be appended. */
  makeMask(length: number, options?: MaskOptions): Mask;
}

/** A cache of attention within chunks. */
export interface ChunkedCache extends KeyValueCache {
  /** Before a forward pass: drops what no later token sees. */
  dropFront(): void;
}
