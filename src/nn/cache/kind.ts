/**
 * What a class of caches says of itself: its name, its state in files, its batched and its packed form. Each class has a
 * `static kind`; kinds.ts lists them. Who merges, packs or saves caches asks the kind, and knows no class.
 */
import { ExitCode, UserError } from "../../errors";
import { Tensor } from "../../mlx";
import type { BatchCache } from "./batch";
import type { Cache } from "./cache";
import type { KvQuantization } from "./rows";

/** A state as a tree of lists. */
export type CacheState = Tensor | number | boolean | string | null | CacheState[];

/** Finds a kind by its name. */
export type Kinds = (name: string) => CacheKind | undefined;

export interface CacheKind<C extends Cache = Cache> {
  /** As mlx-lm names the class: it stands in prompt-cache files. */
  readonly name: string;
  /** What the entries of a state are, in order. Absent: one or more of one sort. */
  readonly fields?: readonly string[];
  /** What hinders a list with these fields from being the state of such a cache, as a clause; null: nothing. */
  problem(state: readonly CacheState[], kinds: Kinds): string | null;
  /** A cache with a state in which there is no problem. It keeps the tensors. */
  restore(state: readonly CacheState[], kinds: Kinds): C;
  /** Its state as files have it. Absent: `cache.state`. */
  saved?(cache: C): CacheState;
  /** One layer's caches of several sequences as one. They are copied. Absent: it serves one sequence at a time. */
  merge?(caches: readonly C[]): BatchCache;
  /** The same tokens in few bits, or null where there are fewer than `start`. The cache stays as it is. */
  pack?(cache: C, how: KvQuantization, start: number): Cache | null;
  /** The caches that it is made of. */
  parts?(cache: C): readonly Cache[];
  /** Its parts do not hold one entry for each token: it goes back to an earlier state as a whole, or not. */
  readonly isWhole?: boolean;
}

/** A cache's kind; undefined for the batched forms, which are in no file. */
export function kindOf(cache: Cache): CacheKind | undefined {
  const type = cache.constructor as { kind?: CacheKind };
  // A class that inherits a kind is not of that kind.
  return Object.hasOwn(type, "kind") ? type.kind : undefined;
}

/** @throws UserError for a cache that files have no place for */
export function savedKindOf(cache: Cache): CacheKind {
  const kind = kindOf(cache);
  if (kind) return kind;
  throw new UserError("this model's cache cannot be kept in a file", { code: ExitCode.notFound });
}

/** A cache's state as files have it. */
export const savedStateOf = (cache: Cache): CacheState =>
  savedKindOf(cache).saved?.(cache) ?? (cache.state as CacheState);

/** What hinders a tree from being the state of a cache of this kind, as a clause; null: nothing. */
export function stateProblem(kind: CacheKind, state: CacheState, kinds: Kinds): string | null {
  if (!Array.isArray(state)) return "it is one value, not a list";
  const { fields } = kind;
  const count = fields?.length ?? Math.max(1, state.length);
  if (state.length !== count) return `it has ${state.length} entries, not ${count} (${fields?.join(", ") ?? "parts"})`;
  return kind.problem(state, kinds);
}

/** The first problem of several; null where there is none. Later ones are looked for only where the earlier are none. */
export function firstProblem(...checks: (() => string | null)[]): string | null {
  for (const check of checks) {
    const problem = check();
    if (problem !== null) return problem;
  }
  return null;
}

/** Positions and sizes are 32-bit numbers in MLX; far below their end no sum of them overflows. */
const largest = 2 ** 30;

export const isCount = (value: CacheState | undefined): value is number =>
  Number.isInteger(value) && (value as number) >= 0 && (value as number) <= largest;

/** @param least the smallest that it may be */
export function countProblem(name: string, value: CacheState | undefined, least = 0): string | null {
  if (isCount(value) && value >= least) return null;
  return `its ${name} is ${shown(value)}, not a whole number from ${least} to ${largest}`;
}

export const shown = (value: CacheState | undefined): string => {
  if (value instanceof Tensor) return `a tensor (${value.shape.join(", ")})`;
  return Array.isArray(value) ? "a list" : String(value);
};

export const isFloating = (x: Tensor): boolean => ["float16", "bfloat16", "float32"].includes(x.dtype);

/**
 * Keys (1, H, S, D) and values (1, H, S, D'), or neither, of which `used` rows are in use. D' may differ, and be 0 where
 * the keys are all that is remembered.
 */
export function columnsProblem(
  keys: CacheState | undefined,
  values: CacheState | undefined,
  [usedName, used]: readonly [name: string, used: CacheState | undefined],
): string | null {
  const bad = countProblem(usedName, used);
  if (bad) return bad;
  if (keys === null && values === null) return used === 0 ? null : `its ${usedName} is ${used}, but it holds no keys`;
  return firstProblem(
    () => rowsProblem("keys", keys, 1),
    () => rowsProblem("values", values, 0),
    () => {
      const [k, v] = [keys as Tensor, values as Tensor];
      if ([0, 1, 2].some((axis) => k.dim(axis) !== v.dim(axis)))
        return `its keys are ${shown(k)}, its values ${shown(v)}: they may differ in the last axis only`;
      const rows = k.dim(2);
      return (used as number) <= rows ? null : `its ${usedName} is ${used}, but its keys have ${rows} rows`;
    },
  );
}

function rowsProblem(name: string, x: CacheState | undefined, leastWidth: number): string | null {
  if (!(x instanceof Tensor)) return `its ${name} are ${shown(x)}, not a tensor`;
  if (x.ndim !== 4 || x.dim(0) < 1 || x.dim(1) < 1 || x.dim(3) < leastWidth)
    return `its ${name} are ${shown(x)}, not (1, heads, tokens, size)`;
  return isFloating(x) ? null : `its ${name} are of ${x.dtype}, not float16, bfloat16 or float32`;
}
