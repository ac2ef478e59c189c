import { expect, test } from "bun:test";
import { braillePlot } from "./braille-plot";

test("a falling line goes from the upper left to the lower right, joined", () => {
  const lines = braillePlot(
    Array.from({ length: 8 }, (_, i) => [i, 7 - i] as const),
    { columns: 10, rows: 2 },
  );
  expect(lines).toEqual(["7.000 ⠑⢄⠀⠀", "0.000 ⠀⠀⠑⢄"]);
});

test("few points are joined, far values are named at the ends", () => {
  const points = [
    [0, 1000],
    [1, 0.5],
    [2, 1000],
  ] as const;
  const lines = braillePlot(points, { columns: 26, rows: 3 });
  expect(lines.map((line) => line.slice(0, 7))).toEqual(["  1000 ", "       ", "0.5000 "]);
  expect(lines.every((line) => line.length === 26)).toBe(true);
  // Mirrored about its middle: down, then up again.
  expect(lines[0]!.at(7)).not.toBe("⠀");
  expect(lines[0]!.at(-1)).not.toBe("⠀");
  expect(lines[2]!.slice(15, 18)).toMatch(/[^⠀]/);
  expect(lines[2]!.slice(7, 10)).toBe("⠀⠀⠀");
});

test.each([
  [[]],
  [[[1, 2]]],
  [
    [
      [1, Number.NaN],
      [2, 3],
      [3, Number.POSITIVE_INFINITY],
    ],
  ],
] as [[number, number][]][])("%j has no line", (points) => {
  expect(braillePlot(points, { columns: 40, rows: 4 })).toEqual([]);
});

test("equal values and equal places are drawn too", () => {
  expect(
    braillePlot(
      [
        [1, 3],
        [1, 3],
      ],
      { columns: 9, rows: 1 },
    ),
  ).toEqual(["3.000 ⡀⠀⠀"]);
});

test("the narrowest place", () => {
  const lines = braillePlot(
    [
      [0, 1],
      [1, 2],
    ],
    { columns: 1, rows: 2 },
  );
  expect(lines.map((line) => line.length)).toEqual([7, 7]);
});
