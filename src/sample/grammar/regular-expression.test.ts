import { describe, expect, test } from "bun:test";
import {
  anyCharacter,
  complement,
  intersection,
  normalized,
  parsePattern,
  toEbnf,
  toPattern,
  UnsupportedExpression,
} from "./regular-expression";

test("characters are ranges in order, apart, without surrogates", () => {
  expect(
    normalized([
      [5, 9],
      [1, 4],
      [20, 22],
    ]),
  ).toEqual([
    [1, 9],
    [20, 22],
  ]);
  expect(anyCharacter).toEqual([
    [0, 0xd7ff],
    [0xe000, 0x10ffff],
  ]);
  expect(complement(complement([[48, 57]]))).toEqual([[48, 57]]);
  expect(intersection([[1, 10]], [[5, 20]])).toEqual([[5, 10]]);
});

test.each([
  ["abc", "([a] [b] [c])"],
  ["[a-c]x*", "([a-c] ([x])*)"],
  ["a|b|", '([a] | [b] | "")'],
  ["(?:ab+)?", "(([a] ([b])+))?"],
  ["a{2,3}?", "([a]){2,3}"],
  ["\\d[^\\d]", `([0-9] [\\u0000-\\u002f\\u003a-\\ud7ff\\ue000-\\U0010ffff])`],
  ["\\u{1f600}", "[\\U0001f600]"],
  ["(?<year>a)", "[a]"],
])("%p as EBNF", (pattern, ebnf) => {
  expect(toEbnf(parsePattern(pattern).expression)).toBe(ebnf);
});

test.each<[string, boolean, boolean]>([
  ["^a$", true, true],
  ["^a", true, false],
  ["a$", false, true],
  ["a", false, false],
  ["^a|b$", true, true],
  ["^a|^b", true, false],
])("where %p is bound", (pattern, atStart, atEnd) => {
  expect(parsePattern(pattern)).toMatchObject({ atStart, atEnd });
});

test("a class that begins with ^ stays itself", () => {
  expect(toPattern(parsePattern("[\\^a]").expression)).toStartWith("(?:\\^|[a])");
});

test("a long repetition is a chain of short ones", () => {
  const counts = [...toEbnf(parsePattern("a{300,1000}").expression).matchAll(/\{(\d+)(?:,(\d+))?\}/g)];
  for (const [, from, to] of counts) expect(Math.max(Number(from), Number(to ?? 0))).toBeLessThanOrEqual(128);
});

describe("refused", () => {
  test.each([
    "a(?=b)",
    "(?<!a)b",
    "(a)\\1",
    "\\bword",
    "\\p{L}",
    "a^b",
    "(a$)b",
    "a{9999}",
    `${"(".repeat(101)}a${")".repeat(101)}`,
  ])("%p", (pattern) => expect(() => parsePattern(pattern)).toThrow(UnsupportedExpression));
  test.each(["(", "[", "a{2,1}", "*", "\\"])("no pattern: %p", (pattern) =>
    expect(() => parsePattern(pattern)).toThrow(SyntaxError),
  );
});
