/** Rings of several sequences, as an operation sees them that writes tokens in place. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import * as mx from "../../mlx";
import { BatchRotatingKVCache } from "./batch-rotating";
import { RotatingKVCache } from "./rotating";

const limit = 8;

const tensorOf = (row: readonly number[]) => mx.array(row, "float32", [1, 1, row.length, 1]);

/** A batch of these sequences of numbers, each its key and value. */
function batchOf(rows: readonly (readonly number[])[]): BatchRotatingKVCache {
  const caches = rows.map((row) => {
    const cache = new RotatingKVCache(limit);
    mx.scope(() => void cache.update(tensorOf(row), tensorOf(row)));
    return cache;
  });
  const batch = BatchRotatingKVCache.merge(caches, (maxSize) => new RotatingKVCache(maxSize));
  for (const cache of caches) cache.dispose();
  return batch;
}

const numbers = (count: number, from = 1) => Array.from({ length: count }, (_, i) => from + i);

const addTokens = (batch: BatchRotatingKVCache, tokens: readonly number[]) =>
  mx.scope(() => {
    const added = mx.array(tokens as number[], "float32", [tokens.length, 1, 1, 1]);
    batch.update(added, added);
  });

test("a mask is plain where it hides what is not a row's own and nothing else", () => {
  const before = mx.liveHandles();
  for (const lengths of [
    [3, 5],
    [3, 12],
  ]) {
    const batch = batchOf(lengths.map((length) => numbers(length)));
    mx.scope(() => {
      expect(batch.isPlain(batch.makeMask(1))).toBe(true);
      expect(batch.isPlain(batch.makeMask(1, { window: limit }))).toBe(true);
      expect(batch.isPlain(batch.makeMask(1, { window: 4 }))).toBe(false);
      expect(batch.isPlain(null)).toBe(false);
      const earlier = batch.makeMask(1);
      addTokens(batch, [1, 1]);
      expect(batch.isPlain(earlier)).toBe(false);
      expect(batch.isPlain(batch.makeMask(1))).toBe(true);
    });
    batch.dispose();
  }
  const even = batchOf([numbers(9), numbers(11)]);
  expect(even.isPlain(null)).toBe(true);
  expect(even.isPlain("causal")).toBe(false);
  even.dispose();
  expect(mx.liveHandles()).toBe(before);
});

test("places are written in place only by who alone holds the buffers, up to the ring's own", () => {
  const before = mx.liveHandles();
  const batch = batchOf([numbers(3), numbers(5)]);
  expect(batch.room![0].shape).toEqual([2, 1, limit, 1]);
  for (const used of [5, 6, 7]) {
    expect(batch.inOrder).toEqual({ used, starts: [2, 0], positions: [used - 2, used] });
    // The writer of a step, which stands for a kernel.
    mx.scope(() => batch.filledBy(mx.ones([2, 1, 8])));
  }
  // The next token takes the place of the oldest one, which nobody sees.
  expect(batch.inOrder).toEqual({ used: limit, starts: [2, 1], positions: [6, 8] });
  expect(batch.room![0].shape).toEqual([2, 1, limit, 1]);
  mx.scope(() => batch.filledBy(mx.ones([2, 1, 8])));
  expect(batch.inOrder).toEqual({ used: limit + 1, starts: [2, 2], positions: [7, 9] });
  mx.eval(batch.pending);
  expect(batch.room).not.toBeNull();
  mx.eval(batch.state);
  expect(batch.room).toBeNull();
  addTokens(batch, [1, 1]);
  mx.eval(batch.pending);
  expect(batch.room).not.toBeNull();
  batch.dispose();
  expect(mx.liveHandles()).toBe(before);
});

test("a full ring that steps may still have to read is not written in place", () => {
  const before = mx.liveHandles();
  for (const lengths of [
    [9, 12],
    [limit - 1, 3],
  ]) {
    const batch = batchOf(lengths.map((length) => numbers(length)));
    // Copies that nobody has read.
    expect(batch.room).not.toBeNull();
    addTokens(batch, [1, 1]);
    expect(batch.room).toBeNull();
    mx.eval(batch.pending);
    expect(batch.room).not.toBeNull();
    batch.dispose();
  }
  expect(mx.liveHandles()).toBe(before);
});

test("a place is replaced behind a step that reads it, also where another one is written in between", () => {
  const before = mx.liveHandles();
  const batch = batchOf([numbers(limit - 2), numbers(3)]);
  addTokens(batch, [1, 1]);
  expect(batch.room).toBeNull();
  batch.dispose();
  expect(mx.liveHandles()).toBe(before);
});

test("a batch that takes the place of an empty one shares no memory that is written in place", () => {
  const before = mx.liveHandles();
  const lone = new RotatingKVCache(limit);
  mx.scope(() => void lone.update(tensorOf(numbers(9)), tensorOf(numbers(9))));
  const batch = batchOf([numbers(3)]);
  batch.filter([]);
  batch.extend(BatchRotatingKVCache.merge([lone], (maxSize) => new RotatingKVCache(maxSize)));
  expect(batch.room).toBeNull();
  for (const cache of [batch, lone]) cache.dispose();
  expect(mx.liveHandles()).toBe(before);
});

test("what is longer than its ring is not written in place", () => {
  const before = mx.liveHandles();
  const batch = batchOf([numbers(3), numbers(3)]);
  mx.scope(() => {
    const tokens = mx.ones([2, 1, 7, 1]);
    batch.update(tokens, tokens);
  });
  batch.trim(3);
  addTokens(batch, [1, 1]);
  mx.eval(batch.pending);
  expect(batch.room).toBeNull();
  batch.dispose();
  expect(mx.liveHandles()).toBe(before);
});

test("places in order of time are those of a row's latest tokens, however sequences come and go", () => {
  const before = mx.liveHandles();
  let looks = 0;
  const move = fc.tuple(fc.constantFrom("token", "token", "token", "several", "join", "leave"), fc.nat(20));
  fc.assert(
    fc.property(fc.array(move, { maxLength: 40 }), (moves) => {
      let next = 1;
      const written = (count: number) => Array.from({ length: count }, () => next++);
      let rows = [written(3), written(5)];
      const batch = batchOf(rows);
      const isSeen = () => {
        const { room } = batch;
        const { used, starts, positions } = batch.inOrder;
        expect(positions).toEqual(rows.map(({ length }) => length));
        if (!room) return;
        looks++;
        const length = room[0].dim(2);
        for (const [i, row] of rows.entries()) {
          const held = mx.scope(() => room.map((buffer) => [...(buffer.at(i, 0, ":", 0).toArray() as Float32Array)]));
          const count = used - starts[i]!;
          for (const numbers of held)
            expect(Array.from({ length: count }, (_, at) => numbers[(starts[i]! + at) % length]!)).toEqual(
              row.slice(row.length - count),
            );
          // With its own token it sees a whole ring, or all that there is.
          expect(count + 1).toBeGreaterThanOrEqual(Math.min(limit, batch.size, row.length + 1));
          expect(count).toBeLessThan(length);
        }
      };
      for (const [kind, size] of moves) {
        if (kind === "join") {
          const more = [written(1 + size), written(1 + (size % 7))].slice(size % 2);
          batch.extend(batchOf(more), size % 3 === 0);
          rows = [...rows, ...more];
        } else if (kind === "leave" && rows.length > 1) {
          const gone = size % rows.length;
          batch.filter(rows.flatMap((_, row) => (row === gone ? [] : [row])));
          rows = rows.filter((_, row) => row !== gone);
        } else if (kind === "several") {
          const added = rows.map(() => written(1 + (size % 5)));
          mx.scope(() => {
            const tokens = mx.concatenate(added.map(tensorOf), { axis: 0 });
            batch.update(tokens, tokens);
          });
          rows = rows.map((row, i) => [...row, ...added[i]!]);
        } else if (kind === "token") {
          const tokens = rows.map(() => next++);
          addTokens(batch, tokens);
          rows = rows.map((row, i) => [...row, tokens[i]!]);
        }
        mx.eval(batch.pending);
        mx.scope(isSeen);
      }
      batch.dispose();
    }),
    { numRuns: 120, seed: 7 },
  );
  expect(looks).toBeGreaterThan(300);
  expect(mx.liveHandles()).toBe(before);
});
