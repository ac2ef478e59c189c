/** Rows of JSON and JSON Lines. */

import { UserError } from "../errors";
import { parsePythonJson, specialNumbers } from "../python-json";
import { type Row, RowList, type Rows } from "./rows";

export interface JsonOptions {
  /** In a file that holds one object, the field with the rows. */
  field?: string;
  /** Leave out of a row what it lacks, rather than have null there. */
  sparse?: boolean;
}

/** A whole number that is written as a float. */
class WholeFloat {
  constructor(readonly value: number) {}
}

/** Literals that a plain parser would take for integers. */
const wholeFloats = /\d\.0|\d[eE]/;

/** Python's reader refuses rows that nest about as deep. */
const deepest = 500;

/** Strict JSON, and the bare NaN, Infinity and -Infinity that Python and pandas write for missing numbers. */
function parse(text: string): unknown {
  try {
    return wholeFloats.test(text) ? JSON.parse(text, marks as Reviver) : JSON.parse(text);
  } catch (error) {
    if (!(error instanceof SyntaxError) || !/NaN|Infinity/.test(text)) throw error;
    return parsePythonJson(text, (key, value, context) => specialNumber(value) ?? marks(key, value, context));
  }
}

type Reviver = (key: string, value: unknown) => unknown;

function marks(_: string, value: unknown, context?: { source?: string }): unknown {
  return Number.isInteger(value) && /[.eE]/.test(context?.source ?? "") ? new WholeFloat(value as number) : value;
}

function specialNumber(value: unknown): number | undefined {
  if (value === null || typeof value !== "object" || !("__float__" in value)) return undefined;
  return specialNumbers.get(String(value.__float__));
}

/** Unwraps marked numbers, and notes where floats are. */
function settle(value: unknown, path: string, floats: Set<string>, depth = 0): unknown {
  if (depth > deepest) throw new RangeError("too deep");
  if (typeof value === "number") {
    if (!Number.isInteger(value)) floats.add(path);
    return value;
  }
  if (value instanceof WholeFloat) {
    floats.add(path);
    return value.value;
  }
  if (Array.isArray(value)) {
    for (const [i, item] of value.entries()) value[i] = settle(item, path, floats, depth + 1);
  } else if (value !== null && typeof value === "object") {
    const fields = value as Row;
    for (const name of Object.keys(fields)) {
      const inner = settle(fields[name], path === "" ? name : `${path}.${name}`, floats, depth + 1);
      Object.defineProperty(fields, name, { value: inner, enumerable: true, configurable: true, writable: true });
    }
  }
  return value;
}

/** The beginning of a value. */
function shown(value: unknown): string {
  try {
    return typeof value === "number" ? String(value) : JSON.stringify(value).slice(0, 40);
  } catch {
    return "a list that nests too deep";
  }
}

/** Rows of parsed values. @throws UserError where one is no object */
function rowsOf(values: readonly unknown[], where: (index: number) => string, sparse: boolean): Rows {
  const floats = new Set<string>();
  const columns = new Set<string>();
  for (const [i, value] of values.entries()) {
    if (value === null || typeof value !== "object" || Array.isArray(value)) {
      throw new UserError(`${where(i)}: a row must be an object, not ${shown(value)}`, {
        hint: 'Write one object a row, for example {"text": "…"}',
      });
    }
    try {
      settle(value, "", floats);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw new UserError(`${where(i)}: it nests deeper than ${deepest} levels`, { hint: "Make the row flatter." });
    }
    for (const name of Object.keys(value)) columns.add(name);
  }
  const rows = (values as Row[]).map((row) =>
    sparse || Object.keys(row).length === columns.size
      ? row
      : Object.fromEntries([...columns].map((name) => [name, Object.hasOwn(row, name) ? row[name] : null])),
  );
  return new RowList(rows, where, { floats, columns: [...columns] });
}

/** One object a line. @throws UserError that names the line */
export function readJsonLines(text: string, path: string, { sparse = false }: JsonOptions = {}): Rows {
  const values: unknown[] = [];
  const numbers: number[] = [];
  for (const [i, line] of text.split("\n").entries()) {
    if (line.trim() === "") continue;
    try {
      values.push(parse(line));
    } catch (error) {
      throw new UserError(`${path}, line ${i + 1}: this is no JSON: ${reasonOf(error)}`, {
        hint: "Every line of a .jsonl file is one JSON object.",
      });
    }
    numbers.push(i + 1);
  }
  return rowsOf(values, (i) => `${path}, line ${numbers[i]}`, sparse);
}

/** A list of rows, an object with such a list, or JSON Lines under another name. */
export function readJson(text: string, path: string, { field, sparse = false }: JsonOptions = {}): Rows {
  let value: unknown;
  try {
    value = parse(text);
  } catch (error) {
    if (field === undefined && /^\s*\{/.test(text) && /\}\s*\n\s*\{/.test(text))
      return readJsonLines(text, path, { sparse });
    throw new UserError(`${path} is no JSON: ${reasonOf(error)}`, { hint: "Repair the file." });
  }
  if (field !== undefined) {
    const holder = value as Row | null;
    if (holder === null || typeof holder !== "object" || !Object.hasOwn(holder, field)) {
      throw new UserError(`${path} has no field "${field}"`, { hint: "Check `field` under dataset_kwargs." });
    }
    value = holder[field];
  }
  return rowsOf(Array.isArray(value) ? value : [value], (i) => `${path}, row ${i + 1}`, sparse);
}

const reasonOf = (error: unknown) => (error instanceof RangeError ? "it nests too deep" : (error as Error).message);
