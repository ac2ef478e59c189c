/** Batches whose rows stay apart. */
import { expect, test } from "bun:test";
import * as mx from "../../mlx";
import { ArraysCache, KVCache, LoneCacheList, mergeCaches, RotatingKVCache, type RowsApart } from ".";

/** A cache that has read so many tokens. */
function read(count: number): LoneCacheList {
  const list = new LoneCacheList([new RotatingKVCache(4), new KVCache(), new ArraysCache(1)]);
  const [window, groups, open] = list.parts as [RotatingKVCache, KVCache, ArraysCache];
  const rows = mx.ones([1, 1, count, 2]);
  window.update(rows, rows);
  groups.update(rows, rows);
  open.put(0, mx.ones([1, count, 2]));
  return list;
}

const offsets = (batch: RowsApart) => batch.rows.map(({ parts }) => (parts[1] as KVCache).offset);

test("rows are copies, join, leave and come out again, and nothing stays behind", () => {
  const before = mx.liveHandles();
  mx.scope(() => {
    const lists = [read(3), read(1), read(5)];
    const batch = mergeCaches(lists.slice(0, 2)) as RowsApart;
    const other = mergeCaches(lists.slice(2)) as RowsApart;
    batch.extend(other);
    expect([offsets(batch), other.batchSize, batch.batchSize]).toEqual([[3, 1, 5], 0, 3]);
    const chosen = batch.select([2, 2]);
    batch.filter([2, 0]);
    expect([offsets(batch), offsets(chosen)]).toEqual([
      [5, 3],
      [5, 5],
    ]);
    const own = batch.extract(1);
    (own.parts[1] as KVCache).update(mx.ones([1, 1, 1, 2]), mx.ones([1, 1, 1, 2]));
    expect([(own.parts[1] as KVCache).offset, ...offsets(batch), (lists[0]!.parts[1] as KVCache).offset]).toEqual([
      4, 5, 3, 3,
    ]);
    expect(batch.isTrimmable()).toBeFalse();
    for (const cache of [...lists, batch, other, chosen, own]) cache.dispose();
  });
  expect(mx.liveHandles()).toBe(before);
});
