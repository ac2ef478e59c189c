import { afterAll, afterEach, describe, expect, spyOn, test } from "bun:test";
import { Bars, Progress, type ProgressOptions, type Stage } from "./progress";

let now = 0;
const clock = spyOn(performance, "now").mockImplementation(() => now);
afterEach(() => {
  now = 0;
});
afterAll(() => clock.mockRestore());

/** A bar, and what it has written. */
function bar(options: ProgressOptions, { columns = 80, label = "Training" } = {}) {
  const written: string[] = [];
  const stage: Stage = { kind: "line", write: (text) => void written.push(text), columns: () => columns };
  return { progress: new Progress(label, options, stage), written, line: () => written.at(-1)!.trim() };
}

describe("a bar on a terminal", () => {
  test("slow work is told in seconds for one, quick work by the second", () => {
    const { progress, line } = bar({ unit: "it" });
    progress.at(0, 8);
    now = 30_000;
    progress.at(1, 8);
    expect(line()).toBe("Training  [###.....................] 13%  1 of 8 it  30.0 s/it  3 min 30 s left");
    now = 30_200;
    progress.at(7, 8);
    expect(line()).toContain("4.3 s/it");
  });

  test.each([80, 60, 40, 30, 20])("in %i columns the line is cut, never wrapped", (columns) => {
    const { progress, written } = bar({ unit: "tok", total: 123_456 }, { columns, label: "Calculating the loss" });
    progress.at(0);
    now = 2000;
    progress.at(60_000, undefined, "loss 1.234  1,234 tok/s  12.34 GB");
    const line = written.at(-1)!.slice(1);
    expect(line.length).toBeLessThan(columns);
    expect(line).toStartWith("Calculating the loss".slice(0, columns - 1));
    if (columns > 30) expect(line).toContain("49%");
  });

  test("work that goes on from an earlier run is timed from there", () => {
    const { progress, line } = bar({ unit: "it" });
    progress.at(100, 200);
    now = 2000;
    progress.at(104, 200);
    expect(line()).toContain("2 it/s");
    expect(line()).toContain("48 s left");
  });

  test("work that begins anew has a clock of its own", () => {
    const { progress, line } = bar({ unit: "it" });
    progress.at(0, 10);
    now = 100_000;
    progress.at(10, 10);
    progress.at(0, 10);
    now = 105_000;
    progress.at(5, 10);
    expect(line()).toContain("1 it/s  5 s left");
  });

  test("short work shows nothing, and the end clears the line", () => {
    const { progress, written } = bar({ unit: "tok", total: 10 });
    progress.at(5);
    now = 900;
    progress.at(9);
    progress.end();
    expect(written).toEqual([]);
    progress.at(9);
    now = 3000;
    progress.at(10);
    progress.end();
    expect(written.at(-1)).toBe(`\r${" ".repeat(written.at(-2)!.length - 1)}\r`);
  });
});

test("a pipe gets a line every ten seconds", () => {
  const written: string[] = [];
  const progress = new Progress("Training", { unit: "it" }, { kind: "log", write: (text) => void written.push(text) });
  for (let step = 0; step <= 100; step++) {
    now = step * 250;
    progress.at(step, 100);
  }
  expect(written).toEqual([
    "Training  40%  40 of 100 it  4 it/s  15 s left\n",
    "Training  80%  80 of 100 it  4 it/s  5 s left\n",
  ]);
});

test("of several bars one is shown", () => {
  const written: string[] = [];
  const stage: Stage = { kind: "line", write: (text) => void written.push(text), columns: () => 80 };
  const make = (label: string) => new Progress(label, { unit: "it" }, stage);
  const bars = new Bars({ steps: make("Training"), losses: make("Losses") });
  bars.at("steps", 0, 10);
  now = 2000;
  bars.at("steps", 1, 10);
  expect(written).toHaveLength(1);
  bars.at("losses", 0, 2);
  expect(written.at(-1)).toMatch(/^\r +\r$/);
  now = 4000;
  bars.at("losses", 1, 2);
  expect(written.at(-1)).toStartWith("\rLosses");
  bars.end();
  expect(written.at(-1)).toMatch(/^\r +\r$/);
});
