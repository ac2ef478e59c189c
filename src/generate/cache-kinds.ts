/** The kinds of caches by the names that mlx-lm gives them, and what the state of each is made of. */
import { ExitCode, UserError } from "../errors";
import { Tensor } from "../mlx";
import type { Cache } from "../models";
import {
  ArraysCache,
  CacheList,
  ChunkedKVCache,
  ConcatenateKVCache,
  KVCache,
  QuantizedKVCache,
  RotatingKVCache,
} from "../nn";

/** A state as a tree of lists. */
export type State = Tensor | number | boolean | string | null | State[];

interface Kind {
  type: new (...args: never[]) => Cache;
  make(): Cache;
  /** Whether a list from a file is the state of such a cache. */
  fits(state: readonly State[]): boolean;
}

const kinds: Readonly<Record<string, Kind>> = {
  KVCache: {
    type: KVCache,
    make: () => new KVCache(),
    fits: ([keys, values, offset]) => areColumns(keys, values, offset),
  },
  QuantizedKVCache: {
    type: QuantizedKVCache,
    make: () => new QuantizedKVCache(),
    fits: ([keys, values, offset, groupSize, bits]) =>
      isOneOf(groupSize, [32, 64, 128]) &&
      isOneOf(bits, [2, 3, 4, 5, 6, 8]) &&
      (isTriple(keys) && isTriple(values)
        ? keys.every((part, i) => areColumns(part, values[i], offset))
        : areColumns(keys, values, offset)),
  },
  RotatingKVCache: {
    type: RotatingKVCache,
    make: () => new RotatingKVCache(1),
    fits: ([keys, values, offset, keep, maxSize, index]) =>
      areColumns(keys, values, index) && isCount(offset) && isCount(keep) && isCount(maxSize) && keep < maxSize,
  },
  ConcatenateKVCache: {
    type: ConcatenateKVCache,
    make: () => new ConcatenateKVCache(),
    fits: ([keys, values]) => areColumns(keys, values, 0),
  },
  ChunkedKVCache: {
    type: ChunkedKVCache,
    make: () => new ChunkedKVCache(1),
    fits: ([keys, values, offset, chunkSize, start]) =>
      isCount(offset) && isCount(start) && areColumns(keys, values, offset - start) && isCount(chunkSize),
  },
  ArraysCache: {
    type: ArraysCache,
    make: () => new ArraysCache(1),
    fits: ([arrays]) =>
      Array.isArray(arrays) && arrays.every((one) => one === null || (one instanceof Tensor && one.ndim > 0)),
  },
};

const listKind = "CacheList";

/** @throws UserError for a kind that files have no place for */
export function kindOf(cache: Cache): string {
  if (cache instanceof CacheList) return listKind;
  const found = Object.entries(kinds).find(([, { type }]) => cache instanceof type);
  if (found) return found[0];
  throw new UserError("this model's cache cannot be kept in a file", { code: ExitCode.notFound });
}

/** A cache's state as the file has it: a list of caches says of what kind each is. */
export function stateOf(cache: Cache): State {
  if (!(cache instanceof CacheList)) return cache.state as State;
  return cache.parts.map((part): State => [stateOf(part), kindOf(part)]);
}

/** Whether a tree from a file is the state of such a cache. */
export function isState(kind: string, state: State): state is State[] {
  if (!Array.isArray(state)) return false;
  if (kind === listKind) return state.length > 0 && state.every(isPart);
  return Object.hasOwn(kinds, kind) && kinds[kind]!.fits(state);
}

const isPart = (part: State) =>
  Array.isArray(part) && part.length === 2 && typeof part[1] === "string" && isState(part[1], part[0]!);

/** A cache with a state that `isState` has approved. It keeps the tensors. */
export function restored(kind: string, state: readonly State[]): Cache {
  if (kind === listKind) {
    return new CacheList(
      state.map((part) => restored((part as State[])[1] as string, (part as State[])[0] as State[])),
    );
  }
  const cache = kinds[kind]!.make();
  cache.state = state;
  return cache;
}

const isCount = (value: State | undefined): value is number => Number.isInteger(value) && (value as number) >= 0;
const isOneOf = (value: State | undefined, allowed: readonly number[]) => allowed.includes(value as number);
const isTriple = (value: State | undefined): value is State[] => Array.isArray(value) && value.length === 3;

/** Keys and values (1, H, S, D) of which so many rows are in use, or none at all. */
function areColumns(keys: State | undefined, values: State | undefined, used: State | undefined): boolean {
  if (keys === null && values === null) return used === 0;
  if (!(keys instanceof Tensor && values instanceof Tensor) || keys.ndim !== 4 || values.ndim !== 4) return false;
  return [0, 1, 2].every((axis) => keys.dim(axis) === values.dim(axis)) && isCount(used) && used <= keys.dim(2);
}
