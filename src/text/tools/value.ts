/** Arguments of a tool call as Python holds them, and how Python prints them. */
import { floatText } from "../python-numbers";
import { quote } from "../python-text";

/** A bigint is Python's int and a number its float, so that no digit of an id is lost and 1.0 stays 1.0. */
export type Value = null | boolean | string | bigint | number | Value[] | Mapping;
export type Mapping = Map<Key, Value>;
export type Key = null | boolean | string | bigint | number;

export const isMapping = (value: Value | undefined): value is Mapping => value instanceof Map;

/** Python's truth of a value. */
export function isTruthy(value: Value): boolean {
  if (Array.isArray(value)) return value.length > 0;
  if (value instanceof Map) return value.size > 0;
  return typeof value === "number" ? value !== 0 : Boolean(value);
}

/** json.dumps(value, ensure_ascii=False): its separators, digits, and NaN and Infinity too. */
export function dumps(value: Value): string {
  if (typeof value === "string") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(dumps).join(", ")}]`;
  if (!(value instanceof Map)) return atom(value);
  const entries = [...value].map(([key, item]) => `${JSON.stringify(keyText(key))}: ${dumps(item)}`);
  return `{${entries.join(", ")}}`;
}

function keyText(key: Key): string {
  return typeof key === "string" ? key : atom(key);
}

function atom(value: null | boolean | bigint | number): string {
  if (typeof value !== "number") return String(value);
  if (Number.isNaN(value)) return "NaN";
  return Number.isFinite(value) ? floatText(value) : value < 0 ? "-Infinity" : "Infinity";
}

/** str(value): a text as it is, anything else as its literal. */
export function str(value: Value): string {
  return typeof value === "string" ? value : repr(value);
}

function repr(value: Value): string {
  if (typeof value === "string") return quote(value);
  if (Array.isArray(value)) return `[${value.map(repr).join(", ")}]`;
  if (value instanceof Map) return `{${[...value].map(([key, item]) => `${repr(key)}: ${repr(item)}`).join(", ")}}`;
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "bigint") return value.toString();
  return Number.isFinite(value) ? floatText(value) : Number.isNaN(value) ? "nan" : value < 0 ? "-inf" : "inf";
}

/** A value of JSON.parse as Python's json gives it. Whole numbers are ints: JavaScript does not know 1.0. */
export function ofJson(value: unknown): Value {
  if (typeof value === "number") return Number.isInteger(value) ? BigInt(value) : value;
  if (typeof value === "string" || typeof value === "boolean") return value;
  if (Array.isArray(value)) return value.map(ofJson);
  if (typeof value !== "object" || value === null) return null;
  return new Map(Object.entries(value).map(([key, item]) => [key, ofJson(item)]));
}
