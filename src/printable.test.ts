import { expect, test } from "bun:test";
import fc from "fast-check";
import { printable, printableName } from "./printable";

test.each([
  ["plain", "é 敏捷 😀\n\ttab", "é 敏捷 😀\n\ttab"],
  ["a title", "\u001b]0;pwned\u0007", "\\x1b]0;pwned\\x07"],
  ["a cleared screen", "\u001b[2J\u001b[H", "\\x1b[2J\\x1b[H"],
  ["C1's own introducer", "\u009b2J", "\\x9b2J"],
  ["an override of the order", "photo\u202egpj.exe", "photo\\u202egpj.exe"],
  ["isolates", "\u2066a\u2069", "\\u2066a\\u2069"],
  ["line ends of Windows", "a\r\nb\r", "a\nb"],
  ["a carriage return that writes over", "safe\rEVIL", "safe\\x0dEVIL"],
  ["backspaces, delete, a form feed", "a\b\u007f\f", "a\\x08\\x7f\\x0c"],
  ["colours of a model", "\u001b[31mred", "\\x1b[31mred"],
  ["joiners of emoji and of scripts", "👩\u200d👧 می\u200cخواهم", "👩\u200d👧 می\u200cخواهم"],
])("%s", (_, text, shown) => {
  expect(printable(text)).toBe(shown);
});

test("our own colours stay where they are asked for, and nothing else does", () => {
  const line = "\u001b[1mmodel\u001b[22m \u001b[2J";
  expect(printable(line, { colours: true })).toBe("\u001b[1mmodel\u001b[22m \\x1b[2J");
});

test("a name stays on one line", () => {
  expect(printableName("a\nb\tc\u001b")).toBe("a\\nb\\tc\\x1b");
});

test("what comes out steers nothing, and comes out of itself the same", () => {
  const unit = fc.integer({ min: 0, max: 0x206f }).map((code) => String.fromCharCode(code));
  fc.assert(
    fc.property(fc.string({ unit }), (text) => {
      const shown = printable(text);
      expect(shown.replace(/[\n\t]/g, "")).not.toMatch(/[\p{Cc}\u202a-\u202e\u2066-\u2069]/u);
      expect(printable(shown)).toBe(shown);
    }),
  );
});
