import { describe, expect, test } from "bun:test";
import { wrapped } from "./width";
import { WordWrap } from "./word-wrap";

/** The text as it is written where it comes in pieces of so many letters. */
function shown(text: string, columns: number, size = 3): string {
  let screen = "";
  const wrap = new WordWrap(
    () => columns,
    (part) => {
      screen += part;
    },
  );
  const letters = [...text];
  for (let i = 0; i < letters.length; i += size) wrap.push(letters.slice(i, i + size).join(""));
  wrap.end();
  return screen;
}

describe("text in pieces", () => {
  test("lines end between words, however the pieces are cut", () => {
    for (const size of [1, 2, 5, 100]) {
      expect(shown("the quick brown fox jumps", 10, size)).toBe("the quick\nbrown fox\njumps");
    }
  });

  test("a line that is just as long as the terminal is wide is not broken", () => {
    expect(shown("0123456789\n01234 6789 x", 10)).toBe("0123456789\n01234 6789\nx");
  });

  test("line breaks and indentation of the text stay", () => {
    expect(shown("a\n\n    b c\n\tdef", 12)).toBe("a\n\n    b c\n\tdef");
  });

  test("a word that is longer than a line begins on one of its own", () => {
    expect(shown("see http://example.org/a/long/path now", 12)).toBe("see\nhttp://example.org/a/long/path now");
  });

  test("wide letters count twice, and may be parted; an emoji of several code points counts once and is whole", () => {
    expect(shown("狐狸跳过懒狗", 6)).toBe("狐狸跳\n过懒狗");
    expect(shown("ab 👨‍👩‍👧 👨‍👩‍👧 🇩🇪", 5, 1)).toBe("ab 👨‍👩‍👧\n👨‍👩‍👧 🇩🇪");
  });
});

describe("whole lines", () => {
  test.each([
    ["short", 10, ["short"]],
    ["the quick brown fox", 10, ["the quick", "brown fox"]],
    ["  the quick brown", 10, ["  the", "  quick", "  brown"]],
    ["a-word-that-is-long and", 10, ["a-word-that-is-long", "and"]],
    ["  name    of two words", 16, ["  name    of two", "  words"]],
    ["columns    that   fit", 30, ["columns    that   fit"]],
    ["two\nlines of text", 8, ["two", "lines of", "text"]],
    ["\x1b[2mdim words here\x1b[22m", 9, ["\x1b[2mdim words", "here\x1b[22m"]],
  ])("%j in %i columns", (text, columns, lines) => {
    expect(wrapped(text, columns)).toEqual(lines);
  });
});
