/** A batch of unequal sequences shows each of them what its own cache would. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import * as mx from "../../mlx";
import type { Mask } from "../masks";
import {
  ArraysCache,
  type BatchCache,
  BatchCacheList,
  type BatchKVCache,
  type BatchRotatingKVCache,
  CacheList,
  ConcatenateKVCache,
  type KeyValueCache,
  KVCache,
  mergeCaches,
  QuantizedKVCache,
  RotatingKVCache,
} from ".";

type Batch = BatchKVCache | BatchRotatingKVCache;
type Single = KVCache | RotatingKVCache;

/** A token's key is its number, and its value minus it; 0 stands for padding. */
function tokens(rows: readonly (readonly number[])[]): [mx.Tensor, mx.Tensor] {
  const length = Math.max(...rows.map((row) => row.length));
  const padded = rows.flatMap((row) => [...row, ...new Array<number>(length - row.length).fill(0)]);
  const keys = mx.array(padded, "float32", [rows.length, 1, length, 1]);
  return [keys, keys.negative()];
}

/** For each row and each of its new tokens: the tokens that it may attend to, in ascending order. */
function seen(cache: KeyValueCache, rows: readonly (readonly number[])[], window: number | null): number[][][] {
  return mx.scope(() => {
    const length = Math.max(...rows.map((row) => row.length));
    const mask = cache.makeMask(length, { window });
    const [keys, values] = cache.update(...tokens(rows)) as [mx.Tensor, mx.Tensor];
    const held = keys.squeeze([1, 3]).toList() as number[][];
    expect(values.add(keys).abs().max().item()).toBe(0);
    const columns = held[0]!.length;
    return rows.map((row, i) =>
      row.map((_, at) => {
        const visible = maskRow(mask, { row: i, at, length, columns });
        return held[i]!.filter((_, column) => visible[column]).toSorted((a, b) => a - b);
      }),
    );
  });
}

function maskRow(mask: Mask, place: { row: number; at: number; length: number; columns: number }): boolean[] {
  const { row, at, length, columns } = place;
  if (!(mask instanceof mx.Tensor)) {
    const last = mask === "causal" ? columns - length + at : columns;
    return Array.from({ length: columns }, (_, column) => column <= last);
  }
  const whole = mx.broadcastTo(mask, [Math.max(row + 1, mask.ndim === 4 ? mask.dim(0) : 1), 1, length, columns]);
  return whole.at(row, 0, at).toList() as boolean[];
}

interface Sequence {
  id: number;
  next: number;
  /** What this sequence alone would hold. */
  alone: Single;
}

/** Plays random joins, leaves and steps on a batch and on single caches. */
class Game {
  batch: Batch | null = null;
  sequences: Sequence[] = [];
  #ids = 0;

  constructor(
    private readonly make: () => Single,
    private readonly window: number | null,
  ) {}

  #draw(sequence: Sequence, count: number): number[] {
    return Array.from({ length: count }, () => sequence.id * 1000 + sequence.next++);
  }

  join(lengths: readonly number[]): void {
    const added = lengths.map((length) => {
      const sequence = { id: ++this.#ids, next: 1, alone: this.make() };
      if (length > 0) seen(sequence.alone, [this.#draw(sequence, length)], this.window);
      return sequence;
    });
    const batch = mergeCaches(added.map(({ alone }) => alone)) as Batch;
    if (this.batch) this.batch.extend(batch as never);
    else this.batch = batch;
    this.sequences.push(...added);
    expect(this.batch.batchSize).toBe(this.sequences.length);
  }

  step(lengths: readonly number[]): void {
    if (this.sequences.length === 0) return;
    const drawn = this.sequences.map((sequence, i) => this.#draw(sequence, lengths[i % lengths.length]!));
    const offsets = mx.scope(() => {
      const offset = this.batch!.offset;
      return typeof offset === "number" ? this.sequences.map(() => offset) : offset.toList();
    });
    expect(offsets).toEqual(this.sequences.map(({ alone }) => alone.offset));
    this.batch!.prepare(drawn.map((own) => own.length));
    const together = seen(this.batch!, drawn, this.window);
    this.batch!.finalize();
    const apart = this.sequences.map(({ alone }, i) => seen(alone, [drawn[i]!], this.window)[0]!);
    expect(together).toEqual(apart);
  }

  leave(which: readonly number[]): void {
    if (this.sequences.length === 0) return;
    const gone = new Set(which.map((row) => row % this.sequences.length));
    for (const row of gone) {
      const extracted = this.batch!.extract(row) as Single;
      const sequence = this.sequences[row]!;
      expect([extracted.offset, extracted.size]).toEqual([sequence.alone.offset, sequence.alone.size]);
      for (const count of [1, 3, 1]) {
        const drawn = [this.#draw(sequence, count)];
        expect(seen(extracted, drawn, this.window)).toEqual(seen(sequence.alone, drawn, this.window));
      }
      extracted.dispose();
      sequence.alone.dispose();
    }
    const kept = this.sequences.map((_, i) => i).filter((i) => !gone.has(i));
    this.batch!.filter(kept);
    this.sequences = kept.map((i) => this.sequences[i]!);
    if (kept.length === 0) this.batch = null;
  }

  end(): void {
    this.batch?.dispose();
    for (const { alone } of this.sequences) alone.dispose();
  }
}

const moves = fc.array(
  fc.oneof(
    fc.record({ join: fc.array(fc.integer({ min: 0, max: 14 }), { minLength: 1, maxLength: 3 }) }),
    fc.record({ step: fc.constant([1]) }),
    fc.record({ step: fc.constant([1]) }),
    fc.record({ step: fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 4 }) }),
    fc.record({ leave: fc.array(fc.nat(7), { minLength: 1, maxLength: 2 }) }),
  ),
  { minLength: 3, maxLength: 16 },
);

const kinds: [name: string, make: () => Single, window: number | null][] = [
  ["full attention", () => new KVCache(), null],
  ["full attention, a window in the mask", () => new KVCache(), 4],
  ["a sliding window", () => new RotatingKVCache(6), 6],
  ["a sliding window of one", () => new RotatingKVCache(1), null],
  ["a ring that is wider than the window", () => new RotatingKVCache(8), 3],
];

test.each(kinds)("%s: random joins, leaves and steps", (_, make, window) => {
  fc.assert(
    fc.property(moves, (played) => {
      const before = mx.liveHandles();
      const game = new Game(make, window);
      for (const move of played) {
        if ("join" in move) game.join(move.join);
        else if ("step" in move) game.step(move.step);
        else game.leave(move.leave);
      }
      game.end();
      expect(mx.liveHandles()).toBe(before);
    }),
    { seed: 20, numRuns: 60 },
  );
});

test("an equal batch needs neither masks nor several offsets", () => {
  for (const make of [() => new KVCache(), () => new RotatingKVCache(8)]) {
    const caches = [make(), make()];
    for (const cache of caches) seen(cache, [[1, 2, 3]], null);
    const batch = mergeCaches(caches) as Batch;
    expect([batch.offset, batch.makeMask(1), batch.makeMask(4)]).toEqual([3, null, "causal"]);
    for (const cache of [...caches, batch]) cache.dispose();
  }
});

test("tokens are taken back from all rows", () => {
  const caches = [new KVCache(), new KVCache()];
  seen(caches[0]!, [[1, 2, 3, 4]], null);
  seen(caches[1]!, [[11, 12]], null);
  const batch = mergeCaches(caches) as BatchKVCache;
  expect(batch.trim(1)).toBe(1);
  expect(seen(batch, [[5], [15]], null)).toEqual([[[1, 2, 3, 5]], [[11, 15]]]);
  // No row can give more than it has.
  expect(batch.trim(9)).toBe(2);
  for (const cache of [...caches, batch]) cache.dispose();
});

describe("recurrent state", () => {
  const state = (...values: number[]) => mx.array(values, "float32", [values.length, 1]);
  const filled = (value: number) => {
    const cache = new ArraysCache(2);
    cache.put(0, state(value));
    cache.put(1, state(-value));
    return cache;
  };
  const values = (cache: ArraysCache) => [0, 1].map((i) => cache.get(i)?.flatten().toList() ?? null);

  test("joins, leaves and comes out again", () => {
    const before = mx.liveHandles();
    mx.scope(() => {
      const singles = [filled(1), new ArraysCache(2), filled(3), filled(5)];
      const batch = mergeCaches(singles.slice(0, 3)) as ArraysCache;
      expect(values(batch)).toEqual([
        [1, 0, 3],
        [-1, 0, -3],
      ]);
      batch.filter([2, 0]);
      batch.extend(mergeCaches(singles.slice(3)) as ArraysCache);
      expect(values(batch)).toEqual([
        [3, 1, 5],
        [-3, -1, -5],
      ]);
      const own = batch.extract(1);
      expect(values(own)).toEqual([[1], [-1]]);
      for (const cache of [...singles, batch, own]) cache.dispose();
    });
    expect(mx.liveHandles()).toBe(before);
  });

  test("a mask hides the padding of an update, and goes with it", () => {
    mx.scope(() => {
      const batch = mergeCaches([new ArraysCache(1), new ArraysCache(1)]) as ArraysCache;
      batch.prepare([3, 1]);
      expect(batch.makeMask(3)!.toList()).toEqual([
        [true, true, true],
        [true, false, false],
      ]);
      batch.advance(2);
      expect(batch.makeMask(1)!.toList()).toEqual([[true], [false]]);
      batch.finalize();
      expect(batch.makeMask(3)).toBeNull();
      batch.dispose();
    });
  });
});

test("lists of caches are batched part by part", () => {
  const before = mx.liveHandles();
  mx.scope(() => {
    const lists = [1, 2].map((value) => {
      const arrays = new ArraysCache(1);
      arrays.put(0, mx.array([value], "float32", [1, 1]));
      const attention = new KVCache();
      attention.update(...tokens([[value, value]]));
      return new CacheList([arrays, attention]);
    });
    const batch = mergeCaches(lists) as BatchCacheList;
    expect(batch).toBeInstanceOf(BatchCacheList);
    batch.filter([1]);
    const own = batch.extract(0);
    expect((own.parts[0] as ArraysCache).get(0)!.toList()).toEqual([[2]]);
    expect((own.parts[1] as KVCache).offset).toBe(2);
    for (const cache of [...lists, batch, own]) cache.dispose();
  });
  expect(mx.liveHandles()).toBe(before);
});

test("what has no batched form says so", () => {
  const refused = [[new QuantizedKVCache()], [new ConcatenateKVCache()], [new KVCache(), new RotatingKVCache(4)]];
  for (const caches of refused) expect(() => mergeCaches(caches) as BatchCache).toThrow("no batched form");
});
