/** JSON as Python writes and reads it, with the place of what is wrong. */

/** Numbers that JSON has no word for; Python writes them bare, mlx-lm as `{"__float__": "Infinity"}`. */
export const specialNumbers: ReadonlyMap<string, number> = new Map([
  ["Infinity", Number.POSITIVE_INFINITY],
  ["-Infinity", Number.NEGATIVE_INFINITY],
  ["NaN", Number.NaN],
]);

const blank = /[ \t\n\r]*/y;
const string = String.raw`"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"`;
const number = String.raw`-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?`;
const token = new RegExp(`([{}[\\],:])|(${string})|(-?Infinity|NaN)|${number}|true|false|null`, "y");

/** What may come next, and how an error calls it. */
type Expected = "value" | "first value" | "key" | "first key" | "colon" | "next";

/**
 * The value of a text. `revive` is JSON.parse's; bare `NaN`, `Infinity` and `-Infinity` reach it as `{"__float__": …}`.
 * @throws SyntaxError that says line, column and what was expected
 */
export function parsePythonJson(
  text: string,
  revive: (key: string, value: unknown, context?: { source?: string }) => unknown,
): unknown {
  try {
    return JSON.parse(text, revive);
  } catch {
    const specials = scan(text);
    let plain = "";
    let at = 0;
    for (const { index, word } of specials) {
      plain += `${text.slice(at, index)}{"__float__":"${word}"}`;
      at = index + word.length;
    }
    return JSON.parse(plain + text.slice(at), revive);
  }
}

interface Special {
  index: number;
  word: string;
}

/** Checks the grammar, and returns the special numbers. */
function scan(text: string): Special[] {
  const specials: Special[] = [];
  const open: string[] = [];
  let expected: Expected = "value";
  let at = 0;
  const skip = () => {
    blank.lastIndex = at;
    at += blank.exec(text)![0].length;
  };
  for (skip(); at < text.length; skip()) {
    token.lastIndex = at;
    const found = token.exec(text);
    const [whole = "", mark, quoted, special] = found ?? [];
    const isValue: boolean = found !== null && mark === undefined;
    const closes: string = open.at(-1) === "{" ? "}" : "]";
    if (expected === "value" || expected === "first value") {
      if (isValue) {
        if (special) specials.push({ index: at, word: special });
        expected = "next";
      } else if (mark === "{" || mark === "[") {
        open.push(mark);
        expected = mark === "{" ? "first key" : "first value";
      } else if (expected === "first value" && mark === "]") {
        open.pop();
        expected = "next";
      } else throw fault(text, at, expected, open);
    } else if (expected === "key" || expected === "first key") {
      if (quoted !== undefined) expected = "colon";
      else if (expected === "first key" && mark === "}") {
        open.pop();
        expected = "next";
      } else throw fault(text, at, expected, open);
    } else if (expected === "colon") {
      if (mark !== ":") throw fault(text, at, expected, open);
      expected = "value";
    } else if (mark === "," && open.length > 0) {
      expected = open.at(-1) === "{" ? "key" : "value";
    } else if (mark === closes && open.length > 0) {
      open.pop();
    } else throw fault(text, at, expected, open);
    at += whole.length;
  }
  if (expected !== "next" || open.length > 0) throw fault(text, at, expected, open);
  return specials;
}

function fault(text: string, at: number, expected: Expected, open: readonly string[]): SyntaxError {
  const before = text.slice(0, at).split("\n");
  const place = `line ${before.length}, column ${before.at(-1)!.length + 1}`;
  const names: Record<Expected, string> = {
    value: "a value",
    "first value": 'a value or "]"',
    key: "a name in double quotes",
    "first key": 'a name in double quotes or "}"',
    colon: '":"',
    next: open.length === 0 ? "the end" : `"," or "${open.at(-1) === "{" ? "}" : "]"}"`,
  };
  const ends = at >= text.length ? ", but the text ends" : "";
  return new SyntaxError(`${place}: expected ${names[expected]}${ends}`);
}
