import { expect, test } from "bun:test";
import fc from "fast-check";
import * as mx from "../../mlx";
import { BatchKVCache } from "./batch-kv";
import { KVCache } from "./kv";

function batchOf(lengths: readonly number[]): BatchKVCache {
  const caches = lengths.map((length) => {
    const cache = new KVCache();
    mx.scope(() => {
      cache.update(mx.ones([1, 1, length, 8]), mx.ones([1, 1, length, 8]));
    });
    return cache;
  });
  const batch = BatchKVCache.merge(caches, () => new KVCache());
  for (const cache of caches) cache.dispose();
  return batch;
}

const tensorOf = (row: readonly number[]) => mx.array(row, "float32", [1, 1, row.length, 1]);

const addToken = (batch: BatchKVCache) =>
  mx.scope(() => {
    const token = mx.full([batch.batchSize, 1, 1, 8], 2);
    batch.update(token, token);
  });

test("a mask is plain where it hides the padding of this batch and nothing else", () => {
  const batch = batchOf([3, 5]);
  mx.scope(() => {
    expect(batch.isPlain(batch.makeMask(1))).toBe(true);
    expect(batch.isPlain(batch.makeMask(1, { window: 4 }))).toBe(false);
    expect(batch.isPlain(null)).toBe(false);
    const other = batchOf([5, 4]);
    expect(batch.isPlain(other.makeMask(1))).toBe(false);
    expect(other.isPlain(batch.makeMask(1))).toBe(false);
    other.dispose();
    const even = batchOf([4, 4]);
    expect(even.isPlain(null)).toBe(true);
    expect(even.isPlain("causal")).toBe(false);
    even.dispose();
  });
  batch.dispose();
});

test("rows are written in place only by who alone holds the buffers, and are awaited by who reads them", () => {
  const before = mx.liveHandles();
  const batch = batchOf([3, 5]);
  expect(batch.room).not.toBeNull();
  addToken(batch);
  const [keys] = batch.room!;
  expect(keys.shape).toEqual([2, 1, 261, 8]);
  // The writer of a step, which stands for a kernel.
  mx.scope(() => batch.filledBy(mx.ones([2, 1, 8])));
  expect(batch.size).toBe(7);
  expect(batch.room).not.toBeNull();
  const [read] = batch.state as [mx.Tensor];
  expect(mx.scope(() => read.at(0, 0, 2, 0).item())).toBe(1);
  expect(batch.room).toBeNull();
  addToken(batch);
  expect(batch.room).not.toBeNull();
  mx.eval(batch.pending);
  expect(batch.room).not.toBeNull();
  batch.filter([1]);
  expect(batch.room).not.toBeNull();
  batch.extend(batchOf([2]));
  expect(batch.room).not.toBeNull();
  batch.dispose();
  expect(mx.liveHandles()).toBe(before);
});

test("rows are written in place too when padding has gone with the sequences that needed it", () => {
  const before = mx.liveHandles();
  const batch = batchOf([3, 4, 9, 5]);
  addToken(batch);
  const chosen = batch.select([0, 3]);
  batch.filter([0, 1, 3]);
  for (const [one, padding] of [
    [batch, [2, 1, 0]],
    [chosen, [2, 0]],
  ] as const) {
    expect(one.leftPadding).toEqual(padding);
    expect(one.size).toBe(6);
    expect(one.room).not.toBeNull();
    const [keys] = one.state as [mx.Tensor];
    const row = (of: number) => mx.scope(() => [...(keys.at(of, 0, mx.slice(0, 6), 0).toArray() as Float32Array)]);
    expect(row(0)).toEqual([0, 0, 1, 1, 1, 2]);
    expect(row(padding.length - 1)).toEqual([1, 1, 1, 1, 1, 2]);
    one.dispose();
  }
  expect(mx.liveHandles()).toBe(before);
});

test("rows are taken in any order, and twice", () => {
  const before = mx.liveHandles();
  const batch = batchOf([3, 5, 4]);
  const chosen = batch.select([2, 0, 0, 1]);
  expect(chosen.leftPadding).toEqual([1, 2, 2, 0]);
  const [keys] = chosen.state as [mx.Tensor];
  expect(mx.scope(() => keys.at(":", 0, ":", 0).toList())).toEqual([
    [0, 1, 1, 1, 1],
    [0, 0, 1, 1, 1],
    [0, 0, 1, 1, 1],
    [1, 1, 1, 1, 1],
  ]);
  for (const one of [batch, chosen]) one.dispose();
  expect(mx.liveHandles()).toBe(before);
});

test("caches of different models are no batch", () => {
  const before = mx.liveHandles();
  const wide = new KVCache();
  mx.scope(() => void wide.update(mx.ones([1, 2, 3, 8]), mx.ones([1, 2, 3, 8])));
  const narrow = new KVCache();
  mx.scope(() => void narrow.update(mx.ones([1, 1, 3, 8]), mx.ones([1, 1, 3, 8])));
  expect(() => BatchKVCache.merge([narrow, wide], () => new KVCache())).toThrow("of different models");
  for (const cache of [wide, narrow]) cache.dispose();
  expect(mx.liveHandles()).toBe(before);
});

test("rows are written in place behind prompts of unequal length", () => {
  const before = mx.liveHandles();
  const batch = batchOf([3, 5]);
  batch.prepare([1, 4]);
  mx.scope(() => void batch.update(mx.full([2, 1, 4, 8], 2), mx.full([2, 1, 4, 8], 2)));
  batch.finalize();
  expect(batch.leftPadding).toEqual([5, 0]);
  expect(batch.room).not.toBeNull();
  const other = batchOf([3, 3]);
  other.prepare([1, 2]);
  mx.scope(() => void other.update(mx.full([2, 1, 4, 8], 2), mx.full([2, 1, 4, 8], 2)));
  other.finalize();
  expect(other.leftPadding).toEqual([1, 0]);
  expect(other.size).toBe(5);
  expect(other.room).not.toBeNull();
  const held = (batch: BatchKVCache, row: number, from: number) => {
    const [keys] = batch.state as [mx.Tensor];
    return mx.scope(() => [...(keys.at(row, 0, mx.slice(from, batch.size), 0).toArray() as Float32Array)]);
  };
  expect([held(batch, 0, 5), held(batch, 1, 0)]).toEqual([
    [1, 1, 1, 2],
    [1, 1, 1, 1, 1, 2, 2, 2, 2],
  ]);
  expect([held(other, 0, 1), held(other, 1, 0)]).toEqual([
    [1, 1, 1, 2],
    [1, 1, 1, 2, 2],
  ]);
  batch.dispose();
  other.dispose();
  expect(mx.liveHandles()).toBe(before);
});

test("a batch whose rows are full is given more of them, with what they hold", () => {
  const before = mx.liveHandles();
  const batch = batchOf([5, 3]);
  for (let i = 0; i < 256; i++) addToken(batch);
  const [keys] = batch.room!;
  expect(keys.shape).toEqual([2, 1, 517, 8]);
  const row = (at: number) => mx.scope(() => [0, 1].map((which) => keys.at(which, 0, at, 0).item()));
  expect([0, 1, 2, 4, 5, 260, 261].map(row)).toEqual([
    [1, 0],
    [1, 0],
    [1, 1],
    [1, 1],
    [2, 2],
    [2, 2],
    [0, 0],
  ]);
  batch.dispose();
  expect(mx.liveHandles()).toBe(before);
});

test("rows keep what is theirs, however sequences come and go and room is asked for", () => {
  const before = mx.liveHandles();
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.constantFrom("token", "room", "join", "leave", "read"), fc.nat(300)), { maxLength: 40 }),
      (moves) => {
        let next = 1;
        const written = (count: number) => Array.from({ length: count }, () => next++);
        const batchHolding = (rows: number[][]) => {
          const caches = rows.map((row) => {
            const cache = new KVCache();
            mx.scope(() => void cache.update(tensorOf(row), tensorOf(row)));
            return cache;
          });
          const batch = BatchKVCache.merge(caches, () => new KVCache());
          for (const cache of caches) cache.dispose();
          return batch;
        };
        let rows = [written(3), written(5)];
        const batch = batchHolding(rows);
        for (const [move, size] of moves) {
          if (move === "room") mx.scope(() => void batch.room);
          else if (move === "read") mx.eval(size % 2 === 0 ? batch.state : batch.pending);
          else if (move === "join") {
            const more = [written(1 + size), written(1 + (size % 7))].slice(size % 2);
            batch.extend(batchHolding(more));
            rows = [...rows, ...more];
          } else if (move === "leave" && rows.length > 1) {
            const gone = size % rows.length;
            batch.filter(rows.flatMap((_, row) => (row === gone ? [] : [row])));
            rows = rows.filter((_, row) => row !== gone);
          } else if (move === "token") {
            const tokens = rows.map(() => next++);
            mx.scope(() => {
              const added = mx.array(tokens, "float32", [rows.length, 1, 1, 1]);
              batch.update(added, added);
            });
            rows = rows.map((row, i) => [...row, tokens[i]!]);
          }
        }
        mx.scope(() => {
          for (const [i, row] of rows.entries()) {
            const [keys, values, length] = batch.rowState(i);
            expect(length).toBe(row.length);
            expect([...keys.toArray()]).toEqual(row);
            expect([...values.toArray()]).toEqual(row);
          }
        });
        batch.dispose();
      },
    ),
    { numRuns: 60, seed: 7 },
  );
  expect(mx.liveHandles()).toBe(before);
});
