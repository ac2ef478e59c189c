/** The template engine's values as Python sees them: how they print, compare and hold each other, how large they are. */
import { Environment, Interpreter } from "@huggingface/jinja";
import { floatText } from "./python-numbers";
import { quote } from "./python-text";
import { indexOf } from "./text-search";

/** A value at run time, told apart by `type`. */
export type Value = ReturnType<Interpreter["evaluate"]>;
type Typed<T> = Value & { value: T };
/** What a mapping may have for keys; the engine itself knows only texts. */
export type Key = string | number | boolean | null;
type Call = (args: Value[], scope: Environment) => Value;

export const isString = (v: Value): v is Typed<string> => v.type === "StringValue";
export const isInteger = (v: Value): v is Typed<number> => v.type === "IntegerValue";
export const isFloat = (v: Value): v is Typed<number> => v.type === "FloatValue";
export const isBoolean = (v: Value): v is Typed<boolean> => v.type === "BooleanValue";
export const isTuple = (v: Value): v is Typed<Value[]> => v.type === "TupleValue";
export const isArray = (v: Value): v is Typed<Value[]> => v.type === "ArrayValue" || isTuple(v);
export const isObject = (v: Value): v is Typed<Map<Key, Value>> =>
  v.type === "ObjectValue" || v.type === "KeywordArgumentsValue";
export const isNamespace = (v: Value): v is Typed<Map<string, Value>> => v.type === "NamespaceValue";
export const isFunction = (v: Value): v is Typed<Call> => v.type === "FunctionValue";
export const isNull = (v: Value): boolean => v.type === "NullValue";
export const isUndefined = (v: Value): boolean => v.type === "UndefinedValue";
/** Ints, floats and booleans, which are ints to Python. */
export const isNumeric = (v: Value): v is Typed<number | boolean> => isInteger(v) || isFloat(v) || isBoolean(v);

// The engine keeps its classes to itself, but makes values of them.
type Maker<T> = new (value: T) => Value;
const classOf = (value: unknown) => new Environment().set("value", value).constructor;
const StringValue = classOf("") as Maker<string>;
const IntegerValue = classOf(0) as Maker<number>;
const FloatValue = classOf(0.5) as Maker<number>;
const BooleanValue = classOf(true) as Maker<boolean>;
const ArrayValue = classOf([]) as Maker<Value[]>;
const ObjectValue = classOf({}) as Maker<Map<Key, Value>>;
const FunctionValue = classOf(() => null) as Maker<Call>;
const TupleValue = new Interpreter(new Environment()).evaluate(
  { type: "TupleLiteral", value: [] } as unknown as Parameters<Interpreter["evaluate"]>[0],
  new Environment(),
).constructor as Maker<Value[]>;

export const UNDEFINED = new Environment().set("value", undefined);
export const NONE = new Environment().set("value", null);

/** A value as JSON has it, as the engine's own. */
export function toValue(value: unknown): Value {
  switch (typeof value) {
    case "string":
      return new StringValue(value);
    case "number":
      return Number.isInteger(value) ? new IntegerValue(value) : new FloatValue(value);
    case "boolean":
      return new BooleanValue(value);
    case "object":
      if (value === null) return NONE;
      if (Array.isArray(value)) return list(value.map(toValue));
      return mapping(new Map(Object.entries(value).map(([key, item]) => [key, toValue(item)])));
    default:
      return UNDEFINED;
  }
}

export const list = (items: Value[]): Value => new ArrayValue(items);
export const tuple = (items: Value[]): Value => new TupleValue(items);
export const mapping = (entries: Map<Key, Value>): Value => new ObjectValue(entries);
export const float = (value: number): Value => new FloatValue(value);
export const callable = (call: Call): Value => new FunctionValue(call);

/** Texts that `safe` marks: what is joined to one of them by `+` is escaped, as markupsafe does. */
const safeTexts = new WeakSet<Value>();
export const isSafe = (value: Value): boolean => safeTexts.has(value);

export function safeText(text: string): Value {
  const value = toValue(text);
  safeTexts.add(value);
  return value;
}

const ENTITIES: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;" };

/** The text of a value with HTML's characters as entities, unless it is marked as safe. */
export function escapeText(value: Value): string {
  return isSafe(value) ? str(value) : str(value).replace(/[&<>"']/g, (character) => ENTITIES[character]!);
}

/** The items that a loop or a filter goes through: of a text its characters, of a mapping its keys, of nothing none. */
export function itemsOf(value: Value): Value[] {
  if (isArray(value)) return value.value;
  if (isString(value)) return [...value.value].map(toValue);
  if (isObject(value)) return [...value.value.keys()].map(toValue);
  if (isUndefined(value)) return [];
  throw new Error(`${describe(value)} can't be gone through`);
}

/** Pairs of keys and items, as items() gives them. */
export function entriesOf(entries: ReadonlyMap<Key, Value>): Value {
  return list([...entries].map(([key, item]) => tuple([toValue(key), item])));
}

/** The key that a value is in a mapping: numbers that are equal are one key. @throws Error for lists and mappings. */
export function keyOf(entries: ReadonlyMap<Key, Value>, value: Value): Key {
  const key = value.value as Key;
  if (isNull(value)) return null;
  if (isString(value)) return key;
  if (!isNumeric(value)) throw new Error(`${describe(value)} can't be a key of a mapping`);
  const equal = [Number(key), key === true || key === 1 ? true : key === false || key === 0 ? false : key];
  return equal.find((other) => entries.has(other)) ?? key;
}

/** What a value is called in messages. */
export function describe(value: Value): string {
  return NAMES[value.type] ?? "this value";
}

const NAMES: Record<string, string> = {
  StringValue: "a text",
  IntegerValue: "a number",
  FloatValue: "a number",
  BooleanValue: "a boolean",
  NullValue: "none",
  UndefinedValue: "an undefined value",
  ArrayValue: "a list",
  TupleValue: "a tuple",
  ObjectValue: "a mapping",
  KeywordArgumentsValue: "a mapping",
  NamespaceValue: "a namespace",
  FunctionValue: "a function",
};

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
    if (!isTuple(value)) return `[${items}]`;
    return value.value.length === 1 ? `(${items},)` : `(${items})`;
  }
  if (isObject(value)) {
    return `{${[...value.value].map(([key, item]) => `${repr(toValue(key))}: ${repr(item)}`).join(", ")}}`;
  }
  if (isBoolean(value)) return value.value ? "True" : "False";
  if (isInteger(value)) return integerText(value.value);
  if (isFloat(value)) return floatText(value.value);
  switch (value.type) {
    case "NullValue":
      return "None";
    case "UndefinedValue":
      return "Undefined";
    case "NamespaceValue":
      return "<Namespace>";
    default:
      return "<function>";
  }
}

/** All digits of an integer; JavaScript writes large ones with an exponent. */
export function integerText(value: number): string {
  return Number.isSafeInteger(value) || !Number.isFinite(value) ? String(value) : BigInt(value).toString();
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
    const others: Map<Key, Value> = b.value;
    const same = ([key, item]: [Key, Value]) => others.has(key) && equals(item, others.get(key)!);
    return a.value.size === others.size && [...a.value].every(same);
  }
  return a.value === b.value;
}

/** Python's order: negative where a comes first. @throws Error for values that have none. */
export function compare(a: Value, b: Value): number {
  if (isNumeric(a) && isNumeric(b)) return Number(a.value) - Number(b.value);
  if (isString(a) && isString(b)) return a.value < b.value ? -1 : Number(a.value > b.value);
  if (isArray(a) && isArray(b) && a.type === b.type) {
    const [items, others]: [Value[], Value[]] = [a.value, b.value];
    for (const [i, item] of items.entries()) {
      const other = others[i];
      if (other === undefined) return 1;
      if (!equals(item, other)) return compare(item, other);
    }
    return items.length - others.length;
  }
  throw new Error(`${describe(a)} and ${describe(b)} have no order`);
}

/** Python's `in`. */
export function contains(container: Value, item: Value): boolean {
  if (isArray(container)) return container.value.some((other) => equals(item, other));
  if (isObject(container)) {
    const entries: Map<Key, Value> = container.value;
    return entries.has(keyOf(entries, item));
  }
  if (isUndefined(container)) return false;
  if (isString(container) && isString(item)) return indexOf(container.value, item.value) >= 0;
  throw new Error(`${describe(item)} can't be searched for in ${describe(container)}`);
}

/** Characters that cost as much as one step. */
const CHARACTERS_A_STEP = 16;
/** Far deeper than any JSON schema; padding by depth must not multiply. */
const MAX_DEPTH = 100;

const measured = new WeakMap<Value, { size: number; depth: number }>();

/** The work of going through a value once, in steps. */
export function extent(value: Value): number {
  if (isString(value)) return value.value.length / CHARACTERS_A_STEP;
  if (isArray(value)) return value.value.length;
  return value.value instanceof Map ? value.value.size : 0;
}

/**
 * The work that printing or comparing a value takes, in steps. A list that holds another one twice counts it twice,
 * as printing does. Values never change once made, so what was measured stays; namespaces do, but print as one word.
 * @throws Error for a value that is nested too deep.
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
    const inner = measure(item);
    result.size += inner.size;
    result.depth = Math.max(result.depth, inner.depth + 1);
  }
  if (isObject(value)) result.size += [...value.value.keys()].join("").length / CHARACTERS_A_STEP;
  if (result.depth > MAX_DEPTH) throw new Error("a list or mapping is nested too deep");
  measured.set(value, result);
  return result;
}
