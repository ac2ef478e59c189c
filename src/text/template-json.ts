/** tojson as transformers has it: json.dumps with its arguments, and without escapes for HTML. */
import { floatText } from "./python-numbers";
import {
  compare,
  describe,
  integerText,
  isArray,
  isBoolean,
  isFloat,
  isInteger,
  isNull,
  isObject,
  isString,
  type Key,
  toValue,
  type Value,
} from "./template-values";

export interface JsonLayout {
  /** What each level of nesting is indented by; null keeps everything on one line. */
  indent: string | null;
  separators: [item: string, key: string] | null;
  sortKeys: boolean;
  ensureAscii: boolean;
}

/** @throws Error for what JSON can't hold. */
export function toJson(value: Value, layout: JsonLayout, depth = 0): string {
  if (isString(value)) return quoted(value.value, layout);
  if (isInteger(value) || isBoolean(value) || isFloat(value) || isNull(value)) return scalar(value);
  if (isArray(value)) {
    const items = value.value.map((item) => toJson(item, layout, depth + 1));
    return enclose("[", items, "]", layout, depth);
  }
  if (!isObject(value)) throw new Error(`${describe(value)} is not JSON`);
  const between = layout.separators?.[1] ?? ": ";
  const entries = [...value.value];
  if (layout.sortKeys) entries.sort(([a], [b]) => compare(toValue(a), toValue(b)));
  const fields = entries.map(([key, item]) => quoted(keyText(key), layout) + between + toJson(item, layout, depth + 1));
  return enclose("{", fields, "}", layout, depth);
}

function scalar(value: Value): string {
  if (isNull(value)) return "null";
  if (isBoolean(value)) return String(value.value);
  const number = value.value as number;
  if (!Number.isFinite(number)) return Number.isNaN(number) ? "NaN" : number < 0 ? "-Infinity" : "Infinity";
  return isInteger(value) ? integerText(number) : floatText(number);
}

function keyText(key: Key): string {
  return typeof key === "string" ? key : scalar(toValue(key));
}

function quoted(text: string, { ensureAscii }: JsonLayout): string {
  const json = JSON.stringify(text);
  return ensureAscii ? json.replace(/[\x7f-\uffff]/g, (unit) => `\\u${hex(unit)}`) : json;
}

const hex = (unit: string) => unit.charCodeAt(0).toString(16).padStart(4, "0");

function enclose(
  open: string,
  items: string[],
  close: string,
  { indent, separators }: JsonLayout,
  depth: number,
): string {
  const between = separators?.[0] ?? (indent === null ? ", " : ",");
  if (indent === null || items.length === 0) return open + items.join(between) + close;
  const line = `\n${indent.repeat(depth)}`;
  return `${open}${line}${indent}${items.join(between + line + indent)}${line}${close}`;
}
