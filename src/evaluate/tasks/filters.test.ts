/** Filters, patterns and exact matches against the harness's. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { filterChain } from "./filters";
import { exactMatch } from "./metrics";
import { PythonRegex } from "./python-regex";

type Functions = Parameters<typeof filterChain>[1];

const path = join(import.meta.dir, "../../../test/fixtures/evaluate/filters.json");
const { doc, chains, matches } = JSON.parse(readFileSync(path, "utf8")) as {
  doc: Record<string, unknown>;
  chains: { functions: Functions; responses: string[][]; results: unknown[] }[];
  matches: { prediction: string; reference: string; options: Record<string, unknown>; score: number }[];
};

describe("filters", () => {
  test.each(chains.map((chain) => [JSON.stringify(chain.functions), chain] as const))("%s", (_, chain) => {
    const { apply } = filterChain("it", chain.functions, "a test");
    expect(chain.responses.map((responses) => apply(responses, doc))).toEqual(chain.results);
  });

  test.each([
    [[{ function: "map" }], "mapping_dict must be a mapping"],
    [[{ function: "take_first_k", k: 3 }], "needs 3 responses, but there are 1"],
    [[{ function: "multi_choice_regex", regex_pattern: "(A)" }], 'needs a column "choices"'],
    [[{ function: "custom", filter_fn: "f" }], "which is Python"],
  ])("%j is an error", (functions, message) => {
    expect(() => filterChain("it", functions as Functions, "a test").apply(["x"], {})).toThrow(message);
  });
});

describe("exact_match", () => {
  test.each(matches)("$prediction and $reference", ({ prediction, reference, options, score }) => {
    expect(exactMatch([prediction], [reference], options)).toBe(score);
  });
});

describe("patterns", () => {
  test.each([
    "a++",
    "(?>a)",
    "[",
    "(?P<n",
    "a{2,1}",
    "\\q",
    "(?i:a)b(?-i)",
    "x".repeat(30_000),
    "(?P=no)",
    "\\2(a)",
    "(x+x+)+y",
    "(?P<a>(a|a)*)b",
  ])("%s is refused with its owner's name", (pattern) => {
    expect(() => new PythonRegex(pattern, "the owner")).toThrow("the owner: the pattern");
  });

  test("replacements know groups by number and name", () => {
    expect(new PythonRegex("(?P<a>.)(.)", "x").sub("\\2\\g<a>\\g<0>\\\\", "abcd")).toBe("baab\\dccd\\");
    expect(new PythonRegex("a", "x").sub("b", "aaa", 2)).toBe("bba");
  });
});
