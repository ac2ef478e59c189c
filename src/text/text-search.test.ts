import { expect, test } from "bun:test";
import fc from "fast-check";
import { characterAt, characterCount, indexOf, lastIndexOf, splitAt } from "./text-search";

/** Texts of few letters, long enough for the search that does not compare at every place. */
const periodic = fc.string({ unit: fc.constantFrom("a", "b", "😀"), minLength: 0, maxLength: 300 });
const part = fc.tuple(periodic, fc.nat(250), fc.nat(120));

test("finds what the engine's search finds", () => {
  fc.assert(
    fc.property(part, fc.nat(40), ([text, start, length], from) => {
      const sought = text.slice(start, start + length) || "ab".repeat(40);
      expect(indexOf(text, sought, from)).toBe(text.indexOf(sought, from));
      expect(lastIndexOf(text, sought)).toBe(text.lastIndexOf(sought));
      expect(splitAt(text, sought)).toEqual(text.split(sought));
      expect(indexOf(text.repeat(3), sought)).toBe(text.repeat(3).indexOf(sought));
    }),
    { numRuns: 2000 },
  );
});

test("takes no more than the lengths of both", () => {
  const text = "ab".repeat(350_000);
  const sought = `${"ab".repeat(60_000)}ba${"ab".repeat(60_000)}`;
  const began = performance.now();
  expect(indexOf(text, sought)).toBe(-1);
  expect(lastIndexOf(text, sought)).toBe(-1);
  expect(performance.now() - began).toBeLessThan(2000);
});

test("characters of one unit and of two", () => {
  fc.assert(
    fc.property(
      fc.string({ unit: fc.constantFrom("a", "é", "😀", "\ud83d", "\ude00"), maxLength: 20 }),
      fc.integer({ min: -25, max: 25 }),
      (text, index) => {
        expect(characterCount(text)).toBe([...text].length);
        expect(characterAt(text, index)).toBe([...text].at(index));
      },
    ),
  );
});
