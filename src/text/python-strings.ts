/** Python's string methods, where the template engine lacks them or differs. */
import { strip } from "./python-text";
import { size, str, type Value } from "./template-values";
import { characterCount, indexOf, lastIndexOf, splitAt } from "./text-search";

/** Accounts for work that a call is about to do, in steps; throws when that is too much. */
export type Spend = (steps: number) => void;

type Result = string | number | boolean | string[] | { tuple: string[] };
type Method = (text: string, args: unknown[], spend: Spend) => Result;

const LINE_END = /\r\n|[\n\r\v\f\x85\u2028\u2029]/;

/** Arguments are JavaScript values; lists hold the engine's, and keyword arguments come last as a Map. */
const METHODS: Record<string, Method> = {
  upper: (text) => text.toUpperCase(),
  lower: (text) => text.toLowerCase(),
  swapcase: (text) =>
    text.replace(/\p{L}/gu, (letter) =>
      letter === letter.toUpperCase() ? letter.toLowerCase() : letter.toUpperCase(),
    ),
  strip: (text, [characters]) => strip(text, characters, "both"),
  lstrip: (text, [characters]) => strip(text, characters, "start"),
  rstrip: (text, [characters]) => strip(text, characters, "end"),
  replace: (text, [from, to, count], spend) =>
    replace(text, expectString(from, "replace"), expectString(to, "replace"), expectCount(count, "count"), spend),
  split: (text, [separator, max], spend) => {
    const parts = split(text, separator, expectCount(max, "maxsplit"));
    spend(parts.length);
    return parts;
  },
  rsplit: (text, [separator, max], spend) => {
    spend(text.length);
    return rsplit(text, separator, expectCount(max, "maxsplit"));
  },
  splitlines: (text) => {
    const lines = text.split(LINE_END);
    return lines.at(-1) === "" ? lines.slice(0, -1) : lines;
  },
  partition: (text, [separator]) => ({ tuple: partition(text, separator, "partition") }),
  rpartition: (text, [separator]) => ({ tuple: partition(text, separator, "rpartition") }),
  join: (text, [items], spend) => join(items, text, spend),
  find: (text, [part]) => position(text, indexOf(text, expectString(part, "find"))),
  rfind: (text, [part]) => position(text, lastIndexOf(text, expectString(part, "rfind"))),
  index: (text, [part]) => {
    const index = indexOf(text, expectString(part, "index"));
    if (index < 0) throw new Error("what index() looks for is not in the text");
    return position(text, index);
  },
  count: (text, [part], spend) => {
    const sought = expectString(part, "count");
    spend(text.length);
    return sought === "" ? text.split(sought).length - 1 : splitAt(text, sought).length - 1;
  },
  startswith: (text, [prefixes, start], spend) => {
    const from = expectCount(start, "start") ?? 0;
    if (from !== 0) spend(text.length);
    const rest = from === 0 ? text : [...text].slice(from).join("");
    return anyAffix(prefixes, spend, (prefix) => rest.startsWith(prefix));
  },
  endswith: (text, [suffixes], spend) => anyAffix(suffixes, spend, (suffix) => text.endsWith(suffix)),
  removeprefix: (text, [prefix]) =>
    typeof prefix === "string" && text.startsWith(prefix) ? text.slice(prefix.length) : text,
  removesuffix: (text, [suffix]) =>
    typeof suffix === "string" && suffix !== "" && text.endsWith(suffix) ? text.slice(0, -suffix.length) : text,
  capitalize: (text) => capitalize(text),
  title: (text) => text.replace(/\p{L}+/gu, capitalize),
  zfill: (text, [width], spend) => {
    const sign = /^[+-]?/.exec(text)![0];
    return sign + padding(text, width, "0", spend) + text.slice(sign.length);
  },
  ljust: (text, [width, filler], spend) => text + padding(text, width, filler, spend),
  rjust: (text, [width, filler], spend) => padding(text, width, filler, spend) + text,
  isupper: (text) => text === text.toUpperCase() && text !== text.toLowerCase(),
  islower: (text) => text === text.toLowerCase() && text !== text.toUpperCase(),
  isdigit: (text) => /^\p{Nd}+$/u.test(text),
  isalpha: (text) => /^\p{L}+$/u.test(text),
  isalnum: (text) => /^[\p{L}\p{N}]+$/u.test(text),
  isspace: (text) => text !== "" && strip(text, undefined, "start") === "",
};

export function stringMethod(name: string): Method | undefined {
  return Object.hasOwn(METHODS, name) ? METHODS[name] : undefined;
}

/** str.join: the items as Python prints them. */
export function join(items: unknown, separator: string, spend: Spend): string {
  if (typeof items !== "string" && !Array.isArray(items)) throw new Error("join() takes a list, or a text");
  if (typeof items === "string") spend(items.length);
  else for (const item of items as Value[]) spend(size(item));
  const texts = typeof items === "string" ? [...items] : (items as Value[]).map(str);
  spend(texts.reduce((length, text) => length + text.length + separator.length, 0) / 16);
  return texts.join(separator);
}

/** str.replace: the first `count` occurrences, or all; an empty `from` stands between any two characters. */
export function replace(text: string, from: string, to: string, count: number | null, spend: Spend): string {
  if (from === "") spend(text.length);
  const parts = from === "" ? ["", ...text, ""] : splitAt(text, from);
  const replaced = count === null || count < 0 ? parts.length - 1 : Math.min(count, parts.length - 1);
  spend(parts.length + (text.length + replaced * to.length) / 16);
  const head = parts.slice(0, replaced + 1).join(to);
  return replaced === parts.length - 1 ? head : head + from + parts.slice(replaced + 1).join(from);
}

function split(text: string, separator: unknown, max: number | null): string[] {
  if (typeof separator === "string") {
    if (separator === "") throw new Error("split() takes a separator that is not empty");
    const parts = splitAt(text, separator);
    return max === null || max < 0 || parts.length - 1 <= max
      ? parts
      : [...parts.slice(0, max), parts.slice(max).join(separator)];
  }
  const words = [...text.matchAll(/\S+/g)];
  const kept = max === null || max < 0 ? words : words.slice(0, max);
  const rest = words[kept.length];
  return [...kept.map(([word]) => word), ...(rest ? [text.slice(rest.index)] : [])];
}

function rsplit(text: string, separator: unknown, max: number | null): string[] {
  if (typeof separator !== "string") return text.split(/\s+/).filter((word) => word !== "");
  if (separator === "") throw new Error("rsplit() takes a separator that is not empty");
  const parts = splitAt(text, separator);
  if (max === null || max < 0 || parts.length - 1 <= max) return parts;
  const cut = parts.length - max;
  return [parts.slice(0, cut).join(separator), ...parts.slice(cut)];
}

/** startswith and endswith take one text, or a tuple of them. */
function anyAffix(affixes: unknown, spend: Spend, fits: (affix: string) => boolean): boolean {
  const texts = Array.isArray(affixes) ? (affixes as Value[]).map((affix) => affix.value) : [affixes];
  return texts.some((affix) => {
    const text = expectString(affix, "startswith and endswith");
    spend(text.length / 16);
    return fits(text);
  });
}

/** An index in UTF-16 units as one in characters, which is what Python counts. */
function position(text: string, index: number): number {
  return index < 0 ? index : characterCount(text.slice(0, index));
}

/** What stands before a separator, itself, and what stands behind it; where it is not there, the text and two empty ones. */
function partition(text: string, separator: unknown, method: "partition" | "rpartition"): string[] {
  const mark = expectString(separator, method);
  const index = method === "partition" ? indexOf(text, mark) : lastIndexOf(text, mark);
  if (index >= 0) return [text.slice(0, index), mark, text.slice(index + mark.length)];
  return method === "partition" ? [text, "", ""] : ["", "", text];
}

function padding(text: string, width: unknown, filler: unknown, spend: Spend): string {
  const missing = Math.max(0, (expectCount(width, "width") ?? 0) - characterCount(text));
  spend(missing / 16);
  const fill = typeof filler === "string" ? filler : " ";
  if (characterCount(fill) !== 1) throw new Error("a text is filled up with one character");
  return fill.repeat(missing);
}

export function capitalize(text: string): string {
  const [first = "", ...rest] = text;
  return first.toUpperCase() + rest.join("").toLowerCase();
}

function expectString(value: unknown, method: string): string {
  if (typeof value !== "string") throw new Error(`${method}() takes strings`);
  return value;
}

function expectCount(value: unknown, keyword: string): number | null {
  const given = value instanceof Map ? (value.get(keyword) as Value | undefined)?.value : value;
  if (given === undefined || given === null) return null;
  if (typeof given !== "number") throw new Error(`${keyword} must be a number`);
  return given;
}
