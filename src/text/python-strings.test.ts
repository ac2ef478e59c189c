import { describe, expect, test } from "bun:test";
import { join, replace, stringMethod } from "./python-strings";
import { strip } from "./python-text";
import { toValue } from "./template-values";

const free = () => {};
const call = (name: string, text: string, ...args: unknown[]) => stringMethod(name)!(text, args, free);

test("strip takes whitespace, or a set of characters, off either end", () => {
  expect(strip("\u2003 \x1c a b \n", undefined, "both")).toBe("a b");
  expect(strip("\ufeffa\ufeff", undefined, "both")).toBe("\ufeffa\ufeff");
  expect(strip("xyaxy", "yx", "start")).toBe("axy");
  expect(strip("😀a😀😀", "😀", "end")).toBe("😀a");
  expect(strip("aaa", "a", "both")).toBe("");
  expect(strip(" a ", "", "both")).toBe(" a ");
});

test("replace counts from the left, and puts text between characters for an empty one", () => {
  expect(replace("aXbXc", "X", "-", null, free)).toBe("a-b-c");
  expect(replace("aXbXc", "X", "-", 1, free)).toBe("a-bXc");
  expect(replace("aXbXc", "X", "-", 0, free)).toBe("aXbXc");
  expect(replace("a😀", "", ".", null, free)).toBe(".a.😀.");
  expect(replace("ab", "", ".", 1, free)).toBe(".ab");
  expect(replace("a$b", "$", "$&", null, free)).toBe("a$&b");
});

describe("split", () => {
  test("by a separator", () => {
    expect(call("split", "a,b,,c", ",")).toEqual(["a", "b", "", "c"]);
    expect(call("split", "a,b,c", ",", 1)).toEqual(["a", "b,c"]);
    expect(call("rsplit", "a,b,c", ",", 1)).toEqual(["a,b", "c"]);
    expect(() => call("split", "a", "")).toThrow("not empty");
  });

  test("by whitespace", () => {
    expect(call("split", "  a  b c ")).toEqual(["a", "b", "c"]);
    expect(call("split", "  a  b c ", null, 1)).toEqual(["a", "b c "]);
    expect(call("rsplit", " a b ")).toEqual(["a", "b"]);
  });

  test("by lines", () => {
    expect(call("splitlines", "a\r\nb\n\nc\n")).toEqual(["a", "b", "", "c"]);
    expect(call("splitlines", "")).toEqual([]);
  });
});

test("positions count characters, not UTF-16 units", () => {
  expect(call("find", "😀b", "b")).toBe(1);
  expect(call("rfind", "b😀b", "b")).toBe(2);
  expect(call("find", "a", "b")).toBe(-1);
  expect(call("count", "banana", "an")).toBe(2);
});

test("an affix is a text, or any of several", () => {
  const tuple = ["x", "a"].map((value) => toValue(value));
  expect(call("startswith", "abc", "ab")).toBe(true);
  expect(call("startswith", "abc", tuple)).toBe(true);
  expect(call("endswith", "abc", tuple)).toBe(false);
  expect(() => call("endswith", "abc", 3)).toThrow("takes strings");
});

test("the rest", () => {
  expect(call("capitalize", "éCOLE")).toBe("École");
  expect(call("title", "hELLO wORLD")).toBe("Hello World");
  expect(call("removeprefix", "prefix-a", "prefix-")).toBe("a");
  expect(call("removesuffix", "a.txt", ".txt")).toBe("a");
  expect(call("removesuffix", "a", "")).toBe("a");
  expect(["isdigit", "isalpha", "isalnum", "isspace"].map((name) => call(name, "12"))).toEqual([
    true,
    false,
    true,
    false,
  ]);
  expect(["isdigit", "isalpha", "isalnum", "isspace"].map((name) => call(name, ""))).toEqual([
    false,
    false,
    false,
    false,
  ]);
  expect(join("abc", "-", free)).toBe("a-b-c");
  expect(stringMethod("constructor")).toBeUndefined();
});

test("what may multiply is paid for before it is done", () => {
  const refuse = (steps: number) => {
    if (steps > 1000) throw new Error(`${steps} steps`);
  };
  const long = "x".repeat(10_000);
  expect(() => replace(long, "", long, null, refuse)).toThrow("steps");
  expect(() => join(long, long, refuse)).toThrow("steps");
});
