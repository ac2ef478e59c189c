/** Rows of JSON and JSON Lines. */
import { UserError } from "../errors";
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

function parse(text: string): unknown {
  if (!wholeFloats.test(text)) return JSON.parse(text);
  const marks = (_: string, value: unknown, context?: { source?: string }) =>
    Number.isInteger(value) && /[.eE]/.test(context?.source ?? "") ? new WholeFloat(value as number) : value;
  return JSON.parse(text, marks as (key: string, value: unknown) => unknown);
}

/** Unwraps marked numbers, and notes where floats are. */
function settle(value: unknown, path: string, floats: Set<string>): unknown {
  if (typeof value === "number") {
    if (!Number.isInteger(value)) floats.add(path);
    return value;
  }
  if (value instanceof WholeFloat) {
    floats.add(path);
    return value.value;
  }
  if (Array.isArray(value)) {
    for (const [i, item] of value.entries()) value[i] = settle(item, path, floats);
  } else if (value !== null && typeof value === "object") {
    const fields = value as Row;
    for (const name of Object.keys(fields)) {
      const inner = settle(fields[name], path === "" ? name : `${path}.${name}`, floats);
      Object.defineProperty(fields, name, { value: inner, enumerable: true, configurable: true, writable: true });
    }
  }
  return value;
}

/** Rows of parsed values. @throws UserError where one is no object */
function rowsOf(values: readonly unknown[], where: (index: number) => string, sparse: boolean): Rows {
  const floats = new Set<string>();
  const columns = new Set<string>();
  for (const [i, value] of values.entries()) {
    if (value === null || typeof value !== "object" || Array.isArray(value)) {
      throw new UserError(`${where(i)}: a row must be an object, not ${JSON.stringify(value)?.slice(0, 40)}`, {
        hint: 'Write one object a row, for example {"text": "…"}',
      });
    }
    settle(value, "", floats);
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
