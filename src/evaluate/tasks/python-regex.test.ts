import { describe, expect, test } from "bun:test";
import { UserError } from "../../errors";
import { PythonRegex } from "./python-regex";

const found = (pattern: string, text: string) => new PythonRegex(pattern, "a test").findall(text);

describe("a pattern whose steps grow with the text's length to some power", () => {
  const patterns = [
    "(.*)(.*)(.*)x",
    String.raw`\s*(\w+)\s*\w*\s*\w*!`,
    "(?<=is )(.*)(.*)=",
    String.raw`([\s\S]*)a([\s\S]*)b([\s\S]*)c([\s\S]*)d`,
  ];
  for (const pattern of patterns) {
    test(`${pattern} ends within its time, in words`, () => {
      for (const text of ["a".repeat(50_000), "is ".repeat(20_000), " ".repeat(50_000), "ab".repeat(30_000)]) {
        const began = performance.now();
        try {
          found(pattern, text);
        } catch (error) {
          expect(error).toBeInstanceOf(UserError);
          expect((error as UserError).message).toContain("takes too long on a text of");
        }
        expect(performance.now() - began).toBeLessThan(10_000);
      }
    }, 60_000);
  }

  test("ends by the clock where each place is soon done, and there are many", () => {
    expect(() => found("(.*)B", "a".repeat(400_000))).toThrow("takes too long on a text of 400000 characters");
  }, 20_000);

  test("is found as in a short text, place by place", () => {
    const long = `${"The answer is 4. ".repeat(700)}\n😀The answer is (B).😀`;
    const [short] = ["The answer is 4. \n😀The answer is (B).😀"];
    for (const pattern of [
      "answer is (.*)",
      String.raw`(?<=answer is )\(?([A-Z])(.*)`,
      "(?P<all>.*)B",
      "",
      "😀",
      "x*",
    ]) {
      // The plain search, which short texts get.
      const regex = new RegExp(pattern.replace("(?P<", "(?<"), "gu");
      for (const text of [short!, long]) {
        const plain = Array.from(text.matchAll(regex), (match) =>
          match.length > 1 ? [...match].slice(1) : [match[0]],
        );
        expect(found(pattern, text).map((one) => [one].flat())).toEqual(plain);
      }
    }
  });
});

test("sub and split work on what was found", () => {
  const swap = new PythonRegex(String.raw`(?P<a>\w)-(\w)`, "a test");
  expect(swap.sub(String.raw`\2\g<a>\g<0>`, "x-y, p-q")).toBe("yxx-y, qpp-q");
  expect(swap.sub("", "x-y, p-q", 1)).toBe(", p-q");
  expect(new PythonRegex(String.raw`\s+`, "a test").split(" a  b ")).toEqual(["", "a", "b", ""]);
});
