/** Parts of splits, as `datasets.ReadInstruction` reads them. */
import { expect, test } from "bun:test";
import { fixture } from "../../test/parity/fixtures";
import { RowList } from "./rows";
import { slicedSplit } from "./split-slices";

interface Fixture {
  sizes: Record<string, number>;
  /** Splits, begins and ends; null for what is refused. */
  slices: Record<string, [split: string, from: number, to: number][] | null>;
}

const { sizes, slices } = fixture<Fixture>("tune-data.json");
const splits = new Map(
  Object.entries(sizes).map(([split, length]) => {
    const rows = Array.from({ length }, (_, i) => ({ split, i }));
    return [split, new RowList(rows, (i) => `${split} ${i}`)];
  }),
);

test.each(Object.entries(slices))("%j", async (words, parts) => {
  if (parts === null) {
    expect(() => slicedSplit(splits, words, "a dataset")).toThrow();
    return;
  }
  const expected = parts.flatMap(([split, from, to]) =>
    Array.from({ length: Math.max(0, to - from) }, (_, i) => ({ split, i: from + i })),
  );
  const rows = slicedSplit(splits, words, "a dataset");
  expect(rows.length).toBe(expected.length);
  expect(await rows.all()).toEqual(expected);
  for (const [i, row] of expected.entries()) {
    expect(await rows.at(i)).toEqual(row);
    expect(rows.where(i)).toBe(`${row.split} ${row.i}`);
  }
  await expect(rows.at(expected.length)).rejects.toThrow(RangeError);
});

test.each([
  ["tran[:10]", /no split "tran"; it has train, a.b, long/],
  ["train[:x]", /"train\[:x\]" is no part of a split/],
  ["train[:200%]", /goes beyond 100 %/],
  ["train[:9999999999999999999]", /a boundary that is no number/],
])("%s says what is wrong", (words, message) => {
  expect(() => slicedSplit(splits, words, "a dataset")).toThrow(message);
});
