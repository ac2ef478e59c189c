/** What each kind of cache says of itself, and what is made of it. */
import { describe, expect, test } from "bun:test";
import * as mx from "../../mlx";
import {
  ArraysCache,
  type BatchCacheList,
  type BatchKVCache,
  type Cache,
  CacheList,
  ChunkedKVCache,
  ConcatenateKVCache,
  KVCache,
  kindNamed,
  kindOf,
  LoneCacheList,
  mergeCaches,
  QuantizedKVCache,
  RotatingKVCache,
  savedKindOf,
  stateProblem,
} from ".";

const dispose = (caches: readonly Cache[]) => {
  for (const cache of caches) cache.dispose();
};

/** Keys (1, 1, T, D), numbered, and values of another size that begin with the same numbers. */
function tokens(first: number, count: number, keySize: number, valueSize: number): [mx.Tensor, mx.Tensor] {
  const numbers = mx.arange(first, first + count, 1, { dtype: "float32" }).reshape(1, 1, count, 1);
  return [mx.broadcastTo(numbers, [1, 1, count, keySize]), mx.broadcastTo(numbers, [1, 1, count, valueSize])];
}

test("kinds are found by name and by cache; a batch of lists is no list", () => {
  const made = [
    new KVCache(),
    new RotatingKVCache(3),
    new QuantizedKVCache(),
    new ConcatenateKVCache(),
    new ChunkedKVCache(3),
    new ArraysCache(1),
    new CacheList([new KVCache()]),
    new LoneCacheList([new KVCache()]),
  ];
  for (const cache of made) {
    expect(savedKindOf(cache).name).toBe(cache.constructor.name);
    expect(kindNamed(cache.constructor.name)).toBe(kindOf(cache)!);
  }
  for (const name of ["BatchKVCache", "BatchCacheList", "RowsApart", "constructor", "toString", ""]) {
    expect(kindNamed(name)).toBeUndefined();
  }
  const batch = mergeCaches([new CacheList([new KVCache()])]);
  expect(kindOf(batch)).toBeUndefined();
  expect(() => savedKindOf(batch)).toThrow("cannot be kept in a file");
});

describe.each([
  ["smaller values", 4, 2],
  ["no values", 4, 0],
])("keys with %s", (_, keySize, valueSize) => {
  const first = (x: mx.Tensor) => (x.dim(-1) === 0 ? null : x.at(mx.ellipsis, 0).flatten().toList());
  const shapes = (cache: KVCache) => cache.state.slice(0, 2).map((x) => (x as mx.Tensor).shape.at(-1));

  test.each([
    ["growing", () => new KVCache()],
    ["chunked", () => new ChunkedKVCache(300)],
    ["concatenated", () => new ConcatenateKVCache()],
    ["in a ring", () => new RotatingKVCache(300)],
  ])("are kept: %s", (_, make) => {
    mx.scope(() => {
      const cache = make();
      cache.update(...tokens(1, 255, keySize, valueSize));
      cache.update(...tokens(256, 1, keySize, valueSize));
      const [keys, values] = cache.update(...tokens(257, 2, keySize, valueSize));
      expect(keys.shape).toEqual([1, 1, 258, keySize]);
      expect(values.shape).toEqual([1, 1, 258, valueSize]);
      expect((first(keys) as number[]).slice(-3)).toEqual([256, 257, 258]);
      cache.dispose();
    });
  });

  test("join batches and come out again", () => {
    const before = mx.liveHandles();
    mx.scope(() => {
      const singles = [3, 1].map((count) => {
        const cache = new KVCache();
        cache.update(...tokens(1, count, keySize, valueSize));
        return cache;
      });
      const lists = singles.map((cache) => new CacheList([cache, new ArraysCache(1)]));
      const batch = mergeCaches(lists) as BatchCacheList;
      batch.extend(mergeCaches(lists.slice(0, 1)) as BatchCacheList);
      batch.filter([1, 2]);
      const inner = batch.parts[0] as BatchKVCache;
      inner.update(
        ...(tokens(9, 1, keySize, valueSize).map((x) => mx.concatenate([x, x], { axis: 0 })) as [mx.Tensor, mx.Tensor]),
      );
      const own = batch.extract(0).parts[0] as KVCache;
      expect(first(own.state[0]!)).toEqual([1, 9]);
      expect(shapes(own)).toEqual([keySize, valueSize]);
      dispose([...lists, batch, own]);
    });
    expect(mx.liveHandles()).toBe(before);
  });

  test("are the state of a cache", () => {
    mx.scope(() => {
      const [keys, values] = tokens(1, 3, keySize, valueSize);
      expect(stateProblem(KVCache.kind, [keys, values, 3], kindNamed)).toBeNull();
      expect(stateProblem(KVCache.kind, [values, keys, 3], kindNamed)).toEqual(
        valueSize === 0 ? expect.stringContaining("its keys are a tensor (1, 1, 3, 0)") : null,
      );
    });
  });
});

describe("a ring", () => {
  const ring = (length: number, ...numbers: number[]) =>
    mx.scope(() => stateProblem(RotatingKVCache.kind, [...tokens(1, length, 2, 2), ...numbers], kindNamed));

  test.each([
    ["fills its rows", 4, [4, 0, 6, 4]],
    ["has rows to spare", 6, [4, 0, 6, 4]],
    ["is full", 6, [6, 1, 6, 6]],
    ["turns", 6, [9, 1, 6, 3]],
    ["was read several tokens at once", 9, [20, 2, 6, 9]],
  ])("%s", (_, length, numbers) => expect(ring(length, ...numbers)).toBeNull());

  test.each([
    ["an index within what is kept", 6, [9, 2, 6, 2], /its index is 2 after 9 tokens in 6 rows/],
    ["an index behind its rows", 6, [9, 0, 6, 7], /its index is 7, but its keys have 6 rows/],
    ["tokens that have no rows", 4, [9, 0, 6, 4], /after 9 tokens in 4 rows/],
    ["an index ahead of its tokens", 6, [3, 0, 6, 5], /its index is 5 after 3 tokens/],
    ["no room", 4, [9, 4, 4, 4], /keeps the first 4 tokens, but its size limit is 4/],
    ["no size", 4, [4, 0, 0, 4], /its size limit is 0/],
  ])("cannot have %s", (_, length, numbers, problem) => expect(ring(length, ...numbers)).toMatch(problem));

  test.each([1, 2, 4, 5])("of %p places that is to keep 4 takes every new token", (size) => {
    const cache = new RotatingKVCache(size, 4);
    const held = (count: number, first: number) =>
      mx.scope(() =>
        (
          cache
            .update(...tokens(first, count, 1, 1))[0]
            .flatten()
            .toList() as number[]
        ).at(-1),
      );
    expect(held(9, 1)).toBe(9);
    for (let token = 10; token < 20; token++) {
      const all = mx.scope(() =>
        cache
          .update(...tokens(token, 1, 1, 1))[0]
          .flatten()
          .toList(),
      );
      expect(all).toContain(token);
      expect(all).toHaveLength(size);
    }
    expect(stateProblem(RotatingKVCache.kind, cache.state, kindNamed)).toBeNull();
    cache.dispose();
  });

  test("joins no ring of another size", () => {
    expect(() => mergeCaches([new RotatingKVCache(4), new RotatingKVCache(5)])).toThrow("no batched form");
  });
});

test("recurrent state whose rows are padded on the left: the mask begins with each row's own tokens", () => {
  mx.scope(() => {
    const cache = new ArraysCache(1, 3, [0, 2, 5]);
    expect(cache.makeMask(3)!.toList()).toEqual([
      [true, true, true],
      [false, false, true],
      [false, false, false],
    ]);
    cache.advance(3);
    cache.filter([2, 0]);
    expect(cache.makeMask(3)!.toList()).toEqual([
      [false, false, true],
      [true, true, true],
    ]);
    cache.extend(new ArraysCache(1, 1));
    cache.prepare([3, 2, 1]);
    expect(cache.makeMask(3)!.toList()).toEqual([
      [false, false, true],
      [true, true, false],
      [true, false, false],
    ]);
    expect(cache.select([0]).leftPadding).toEqual([2]);
    cache.finalize();
    expect(cache.makeMask(3)).toBeNull();
  });
});

test("padding in a file is read: whole numbers, one a row", () => {
  mx.scope(() => {
    const arrays = [mx.ones([2, 3]), null];
    const problem = (...rest: (mx.Tensor | null)[]) => stateProblem(ArraysCache.kind, [arrays, ...rest], kindNamed);
    const padding = mx.array([1, 0], "int32");
    expect(problem(padding, null)).toBeNull();
    expect(problem(mx.array([1], "int32"), null)).toBe("its left padding is a tensor (1), not 2 whole numbers");
    expect(problem(null, mx.array([1, 0], "float32"))).toBe("its lengths is a tensor (2), not 2 whole numbers");
    const cache = ArraysCache.kind.restore([arrays, padding, null], kindNamed);
    expect([cache.batchSize, cache.leftPadding]).toEqual([2, [1, 0]]);
    cache.dispose();
  });
});
