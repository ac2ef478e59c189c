import { describe, expect, test } from "bun:test";
import { parsePythonJson, specialNumbers } from "./python-json";

const parse = (text: string) =>
  parsePythonJson(text, (_, value) => {
    const word = (value as { __float__?: string } | null)?.__float__;
    return word === undefined ? value : specialNumbers.get(word);
  });

test("numbers that Python writes and JSON lacks", () => {
  expect(parse('{"limit": [0.0, Infinity, -Infinity, NaN, -1e-5], "text": "NaN, \\" Infinity"}')).toEqual({
    limit: [0, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN, -1e-5],
    text: 'NaN, " Infinity',
  });
});

describe("a fault is named by its place", () => {
  const cases: [text: string, message: string][] = [
    ["", "line 1, column 1: expected a value, but the text ends"],
    ["{", 'line 1, column 2: expected a name in double quotes or "}", but the text ends'],
    ["[1, 2", 'line 1, column 6: expected "," or "]", but the text ends'],
    ["[1,\n 2,]", "line 2, column 4: expected a value"],
    ["[1 2]", 'line 1, column 4: expected "," or "]"'],
    ["[1}", 'line 1, column 3: expected "," or "]"'],
    ['{"a" 1}', 'line 1, column 6: expected ":"'],
    ['{"a":1,\n\n  b: 2}', "line 3, column 3: expected a name in double quotes"],
    ["{'a': 1}", 'line 1, column 2: expected a name in double quotes or "}"'],
    ['{"a": "new\nline"}', "line 1, column 7: expected a value"],
    ['["\\x"]', 'line 1, column 2: expected a value or "]"'],
    ["[01]", 'line 1, column 3: expected "," or "]"'],
    ["{} {}", "line 1, column 4: expected the end"],
    ["[nan]", 'line 1, column 2: expected a value or "]"'],
  ];
  test.each(cases)("%j", (text, message) => {
    expect(() => parse(text)).toThrow(new SyntaxError(message));
  });
});

test("what JSON.parse refuses has a fault with a place, what it reads is read", () => {
  const symbols = ["{", "}", "[", "]", ",", ":", '"a"', "1", "true", " "];
  let state = 7;
  for (let round = 0; round < 20_000; round++) {
    let text = "";
    for (let i = 0; i < 7; i++) {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      text += symbols[(state >>> 16) % symbols.length];
    }
    let expected: unknown;
    try {
      expected = JSON.parse(text);
    } catch {
      expect(() => parse(text)).toThrow(/^line \d+, column \d+: expected /);
      continue;
    }
    expect([text, parse(text)]).toEqual([text, expected]);
  }
});
