import { describe, expect, test } from "bun:test";
import * as fc from "fast-check";
import { jointPieces, type Range, shareHeads } from ".";

const ranks = (size: number) => Array.from({ length: size }, (_, rank) => rank);
const listed = ([start, end]: Range) => Array.from({ length: end - start }, (_, i) => start + i);

describe("heads of ranks", () => {
  test("are whole groups where there are enough", () => {
    expect(ranks(3).map((rank) => shareHeads(8, 4, { rank, size: 3 }))).toEqual([
      { queries: [0, 2], keys: [0, 1], copies: 1, counts: true, alike: false },
      { queries: [2, 4], keys: [1, 2], copies: 1, counts: true, alike: false },
      { queries: [4, 8], keys: [2, 4], copies: 1, counts: true, alike: false },
    ]);
  });

  test("are shares of a group where ranks have the same keys", () => {
    expect(ranks(3).map((rank) => shareHeads(8, 2, { rank, size: 3 }))).toEqual([
      { queries: [0, 2], keys: [0, 1], copies: 2, counts: true, alike: false },
      { queries: [2, 4], keys: [0, 1], copies: 2, counts: true, alike: false },
      { queries: [4, 8], keys: [1, 2], copies: 1, counts: true, alike: false },
    ]);
  });

  test("each count once, whatever the numbers", () => {
    const sizes = fc.tuple(
      fc.integer({ min: 1, max: 12 }),
      fc.integer({ min: 1, max: 8 }),
      fc.integer({ min: 1, max: 16 }),
    );
    fc.assert(
      fc.property(sizes, ([kvHeads, group, size]) => {
        const heads = kvHeads * group;
        const shares = ranks(size).map((rank) => shareHeads(heads, kvHeads, { rank, size }));
        const isAlike = shares.every(({ queries, keys }) => {
          const [first] = shares as [(typeof shares)[0]];
          return (
            listed(queries).length === listed(first.queries).length && listed(keys).length === listed(first.keys).length
          );
        });
        const isDivided = shares.every(({ counts }) => counts);
        for (const { alike } of shares) expect(alike).toBe(isAlike && isDivided);
        const counted = shares.filter(({ counts }) => counts).flatMap(({ queries }) => listed(queries));
        expect(counted.sort((a, b) => a - b)).toEqual(ranks(heads));
        for (const { queries, keys } of shares) {
          const [ownQueries, ownKeys] = [listed(queries), listed(keys)];
          // Grouped attention wants as many queries for each head of keys.
          expect(ownQueries.length % ownKeys.length).toBe(0);
          const each = ownQueries.length / ownKeys.length;
          for (const [i, query] of ownQueries.entries()) {
            expect(Math.floor(query / group)).toBe(ownKeys[Math.floor(i / each)]!);
          }
        }
      }),
    );
  });

  test("of one projection for queries, keys and values", () => {
    const share = shareHeads(4, 2, { rank: 1, size: 2 });
    const sizes = { heads: 4, kvHeads: 2, width: 10 };
    expect(jointPieces(share, sizes)).toEqual([
      [20, 40],
      [50, 60],
      [70, 80],
    ]);
    expect(jointPieces(share, { ...sizes, order: "by group" })).toEqual([
      [40, 60],
      [60, 80],
    ]);
  });
});
