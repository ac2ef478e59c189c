import { describe, expect, test } from "bun:test";
import { bytesInUse, countExactBytes } from "../../../test/exact-bytes";
import { fixture } from "../../../test/parity/fixtures";
import * as mx from "../../mlx";
import type { Mask } from "../masks";
import { type KeyValueCache, KVCache, RotatingKVCache } from ".";

countExactBytes();

type Step =
  | { trim: number; trimmed: number }
  | {
      length: number;
      /** Runs of token numbers: first, count. */
      keys: [number, number][];
      offset: number;
      size: number;
      rows: number;
      mask?: null | "causal" | string[];
    };

interface Sequence {
  size: number | null;
  keep: number;
  window: number | null;
  steps: Step[];
}

const make = ({ size, keep }: Sequence) => (size === null ? new KVCache() : new RotatingKVCache(size, keep));

/** A token's key is its number and its value minus it, (1, 1, T, 1). */
function tokens(first: number, count: number): [mx.Tensor, mx.Tensor] {
  const keys = mx.arange(first, first + count, 1, { dtype: "float32" }).reshape(1, 1, count, 1);
  return [keys, keys.negative()];
}

const written = (mask: Mask) =>
  mask instanceof mx.Tensor
    ? (mask.reshape(-1, mask.dim(-1)).toList() as boolean[][]).map((row) => row.map(Number).join(""))
    : mask;

const expand = (runs: [number, number][]) =>
  runs.flatMap(([first, count]) => Array.from({ length: count }, (_, i) => first + i));

/** Runs a sequence, each step in a scope of its own, and frees the cache. */
function replay(sequence: Sequence): void {
  const cache: KeyValueCache = make(sequence);
  let token = 1;
  for (const step of sequence.steps) {
    if ("trim" in step) {
      expect(cache.isTrimmable()).toBe(true);
      expect(cache.trim(step.trim)).toBe(step.trimmed);
      continue;
    }
    mx.scope(() => {
      if (step.mask !== undefined) {
        expect(written(cache.makeMask(step.length, { window: sequence.window }))).toEqual(step.mask);
      }
      const [keys, values] = cache.update(...tokens(token, step.length)) as [mx.Tensor, mx.Tensor];
      token += step.length;
      const expected = expand(step.keys);
      expect(keys.flatten().toList()).toEqual(expected);
      expect(values.flatten().toList()).toEqual(expected.map((key) => -key));
      const [buffer] = cache.state as [mx.Tensor];
      expect({ offset: cache.offset, size: cache.size, rows: buffer.dim(2) }).toEqual({
        offset: step.offset,
        size: step.size,
        rows: step.rows,
      });
    });
  }
  cache.dispose();
}

for (const [i, sequence] of fixture<Sequence[]>("caches.json").entries()) {
  const { size, keep, window } = sequence;
  test(`sequence ${i}: size ${size}, keep ${keep}, window ${window}: what Python's holds, and nothing left behind`, () => {
    const before = mx.liveHandles();
    replay(sequence);
    expect(mx.liveHandles()).toBe(before);
  });
}

describe("state", () => {
  test("moves to another cache, which continues alike", () => {
    for (const [from, to] of [
      [new KVCache(), new KVCache()],
      [new RotatingKVCache(4, 1), new RotatingKVCache(9)],
    ] as const) {
      for (let token = 1; token < 8; token++) mx.scope(() => void from.update(...tokens(token, 1)));
      (to as KeyValueCache).state = from.state;
      from.dispose();
      const next = (cache: KeyValueCache) =>
        mx.scope(() => (cache.update(...tokens(8, 1))[0] as mx.Tensor).flatten().toList());
      const rotated = [1, 8, 6, 7];
      expect(next(to)).toEqual(to instanceof KVCache ? [1, 2, 3, 4, 5, 6, 7, 8] : rotated);
      to.dispose();
    }
  });

  test("of an empty cache holds no tensor", () => {
    const cache = new RotatingKVCache(4);
    expect({ empty: cache.empty, nbytes: cache.nbytes, state: cache.state }).toEqual({
      empty: true,
      nbytes: 0,
      state: [null, null, 0, 0, 4, 0],
    });
  });
});

test("tokens are written in place: memory does not grow with steps", () => {
  const cache = new KVCache();
  const step = (token: number) => {
    mx.scope(() => {
      const keys = mx.full([1, 8, 1, 64], token, "float32");
      cache.update(keys, keys);
    });
    mx.eval(cache.state);
  };
  step(0);
  mx.resetPeakMemory();
  const before = bytesInUse();
  for (let token = 1; token < 200; token++) step(token);
  // One buffer has 256 rows of 2 KiB; a copy at a write would show as half a MiB.
  expect(mx.peakMemory() - before).toBeLessThan(64 * 1024);
  cache.dispose();
});
