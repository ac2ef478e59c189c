/** The template engine's values as Python sees them: how they print, when they are equal, how large they are. */
import { Environment, type Interpreter } from "@huggingface/jinja";

/** A value at run time, told apart by `type`. */
export type Value = ReturnType<Interpreter["evaluate"]>;
type Typed<T> = Value & { value: T };

export const isString = (v: Value): v is Typed<string> => v.type === "StringValue";
export const isInteger = (v: Value): v is Typed<number> => v.type === "IntegerValue";
export const isArray = (v: Value): v is Typed<Value[]> => v.type === "ArrayValue" || v.type === "TupleValue";
export const isObject = (v: Value): v is Typed<Map<string, Value>> =>
  v.type === "ObjectValue" || v.type === "KeywordArgumentsValue";
export const isNamespace = (v: Value): boolean => v.type === "NamespaceValue";
export const isUndefined = (v: Value): boolean => v.type === "UndefinedValue";
const isNumeric = (v: Value): v is Typed<number | boolean> =>
  v.type === "IntegerValue" || v.type === "FloatValue" || v.type === "BooleanValue";

/** A JavaScript value as the engine's own; a function gets its arguments as JavaScript values. */
export function toValue(value: unknown): Value {
  return new Environment().set("value", value);
}

/** Python's str(): what `{{ value }}` writes. */
export function str(value: Value): string {
  if (isString(value)) return value.value;
  return isUndefined(value) ? "" : repr(value);
}

/** Python's repr(). */
export function repr(value: Value): string {
  if (isString(value)) return quote(value.value);
  if (isArray(value)) {
    const items = value.value.map(repr).join(", ");
    if (value.type === "ArrayValue") return `[${items}]`;
    return value.value.length === 1 ? `(${items},)` : `(${items})`;
  }
  if (isObject(value)) {
    return `{${[...value.value].map(([key, item]) => `${quote(key)}: ${repr(item)}`).join(", ")}}`;
  }
  switch (value.type) {
    case "BooleanValue":
      return value.value ? "True" : "False";
    case "NullValue":
      return "None";
    case "UndefinedValue":
      return "Undefined";
    case "NamespaceValue":
      return "<Namespace>";
    case "FunctionValue":
      return "<function>";
    default:
      return value.toString();
  }
}

/** A Python string literal: single quotes unless only double ones avoid an escape. */
function quote(text: string): string {
  const mark = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escaped = text.replace(/[\\\n\r\t]|['"]|[\p{C}\p{Z}]/gu, (character) => {
    if (character === " ") return character;
    if (character === '"' || character === "'") return character === mark ? `\\${character}` : character;
    const short = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t" }[character];
    if (short) return short;
    const hex = character.codePointAt(0)!.toString(16);
    if (hex.length <= 2) return `\\x${hex.padStart(2, "0")}`;
    return hex.length <= 4 ? `\\u${hex.padStart(4, "0")}` : `\\U${hex.padStart(8, "0")}`;
  });
  return mark + escaped + mark;
}

/** Python's ==: numbers and booleans by value, lists and mappings by content, nothing else across types. */
export function equals(a: Value, b: Value): boolean {
  if (a === b) return true;
  if (isNumeric(a) && isNumeric(b)) return Number(a.value) === Number(b.value);
  if (a.type !== b.type) return false;
  if (isArray(a) && isArray(b)) {
    const others = b.value;
    return a.value.length === others.length && a.value.every((item, i) => equals(item, others[i]!));
  }
  if (isObject(a) && isObject(b)) {
    const others = b.value;
    const same = ([key, item]: [string, Value]) => others.has(key) && equals(item, others.get(key)!);
    return a.value.size === others.size && [...a.value].every(same);
  }
  return a.value === b.value;
}

/** Characters that cost as much as one step. */
const CHARACTERS_A_STEP = 16;
/** Far deeper than any JSON schema; padding by depth must not multiply. */
const MAX_DEPTH = 100;

const measured = new WeakMap<Value, { size: number; depth: number }>();

/**
 * The work that printing or comparing a value takes, in steps. A list that holds another one twice counts it twice,
 * as printing does. Values never change once made, so what was measured stays.
 * @throws Error for a value that is nested too deep, or that holds a namespace, the only value that can change.
 */
export function size(value: Value): number {
  return measure(value).size;
}

function measure(value: Value): { size: number; depth: number } {
  if (isString(value)) return { size: 1 + value.value.length / CHARACTERS_A_STEP, depth: 0 };
  if (!isArray(value) && !isObject(value)) return { size: 1, depth: 0 };
  const known = measured.get(value);
  if (known) return known;
  const result = { size: 1, depth: 1 };
  for (const item of value.value.values()) {
    if (isNamespace(item)) throw new Error("a namespace can't be put into a list or a mapping");
    const inner = measure(item);
    result.size += inner.size;
    result.depth = Math.max(result.depth, inner.depth + 1);
  }
  if (isObject(value)) result.size += [...value.value.keys()].join("").length / CHARACTERS_A_STEP;
  if (result.depth > MAX_DEPTH) throw new Error("a list or mapping is nested too deep");
  measured.set(value, result);
  return result;
}
