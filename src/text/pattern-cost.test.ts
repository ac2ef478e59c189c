import { describe, expect, test } from "bun:test";
import { patternFacts } from "./pattern-cost";

const facts = (source: string) => {
  const found = patternFacts(source);
  if ("problem" in found) throw new Error(found.problem);
  return found;
};

/** Patterns of models, as their tokenizer.json has them. */
const real: Record<string, string> = {
  "GPT-2": String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`,
  Qwen2: String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
  "Llama 3": String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
  "gpt-oss": String.raw`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
  DeepSeek: String.raw`[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_\x60{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
  Kimi: String.raw`[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
  BLOOM: " ?[^(\\s|[.,!?…。，、।۔،])]+",
  "digits from the right": String.raw`\d{1,3}(?=(?:\d{3})*\b)`,
};

describe("patterns of models", () => {
  test.each(Object.entries(real))("%s takes any text, and runs of 100,000", (_, source) => {
    const { least, longestRun } = facts(source);
    expect(least).toBe(1);
    expect(longestRun).toBeGreaterThan(100_000);
  });
});

test.each([
  ["a", 1],
  ["ab?c{2,}", 3],
  ["ab|c", 1],
  ["^", 0],
  ["", 0],
  ["a*", 0],
  [String.raw`\b`, 0],
  ["(?=abc)", 0],
  ["(?<!a)b", 1],
  ["[]a]", 1],
  ["(?:ab){3}", 6],
  [String.raw`\p{^L}\x41A\h`, 4],
])("%s matches at least so many characters: %d", (source, least) => {
  expect(facts(source).least).toBe(least);
});

test.each(["(x+x+)+y", "(a|a)*b", "(a*)*b", "(?:a+)+", "(a{1,1000}){1,1000}b", "((a|b)+c?)*d"])(
  "%s can go back without end",
  (source) => {
    expect(patternFacts(source)).toEqual({ problem: expect.stringContaining("can go back without end") });
  },
);

test.each([
  "(",
  ")",
  "[a",
  "a)",
  "*",
  String.raw`(a)\1`,
  String.raw`\g<1>`,
  "(?(1)a|b)",
  "a".repeat(30_000),
  "(".repeat(100),
])("%s is refused", (source) => {
  expect(patternFacts(source)).toEqual({ problem: expect.stringContaining("can't be used") });
});

test("loops in a row share the steps out between them, unless one can't take what the next begins with", () => {
  expect(facts(String.raw`\s*\s*\s*x`).longestRun).toBeLessThan(1000);
  expect(facts("[a-z]+[0-9]+x").longestRun).toBeGreaterThan(1_000_000);
  expect(facts("(?:[a-z]+,)*x").longestRun).toBeGreaterThan(1000);
  expect(facts("(?>a+)+x").longestRun).toBeGreaterThan(1000);
});
