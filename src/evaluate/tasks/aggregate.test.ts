/** Figures and their standard errors against the harness's. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { aggregate, aggregationNamed, standardError } from "./aggregate";

const path = join(import.meta.dir, "../../../test/fixtures/evaluate/aggregations.json");
const figures: { name: string; items: unknown[]; value: number; stderr: number | null }[] = JSON.parse(
  readFileSync(path, "utf8"),
);

describe("aggregations", () => {
  test.each(figures.map((one) => [one.name, one] as const))("%s is the harness's", async (name, expected) => {
    const aggregation = aggregationNamed(name)!;
    expect(aggregate(aggregation, expected.items)).toBeCloseTo(expected.value, 10);
    const error = await standardError(aggregation, expected.items, 100);
    if (expected.stderr === null) expect(error).toBeNull();
    else expect(error!).toBeCloseTo(expected.stderr, 10);
  });

  test.each([
    ["mean", ["a"], "takes numbers, not"],
    ["f1", [1], "takes pairs, not 1"],
    ["bleu", [["a", 1]], "takes texts, not"],
  ])("%s of other items is an error", (name, items, message) => {
    expect(() => aggregate(aggregationNamed(name)!, items)).toThrow(message);
  });
});
