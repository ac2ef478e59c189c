/** Columns of a row as the kind that a function needs. */
import type { Row } from "../../../data/rows";
import { UserError } from "../../../errors";

function column<T>(row: Row, name: string, kind: string, is: (value: unknown) => value is T): T {
  const value = row[name];
  if (is(value)) return value;
  const problem = Object.hasOwn(row, name) ? `is ${JSON.stringify(value)?.slice(0, 60)}` : "is missing";
  throw new UserError(`the column "${name}" ${problem}, where ${kind} is needed`, {
    hint: `The row has the columns ${Object.keys(row).join(", ")}.`,
  });
}

const isText = (value: unknown): value is string => typeof value === "string";
const isTexts = (value: unknown): value is string[] => Array.isArray(value) && value.every(isText);
const isNumber = (value: unknown): value is number => typeof value === "number";

export const text = (row: Row, name: string): string => column(row, name, "a text", isText);
export const texts = (row: Row, name: string): string[] => column(row, name, "a list of texts", isTexts);
export const number = (row: Row, name: string): number => column(row, name, "a number", isNumber);

/** A whole number, or a text of one. */
export function integer(row: Row, name: string): number {
  const value = row[name];
  const read = isText(value) && /^\s*[+-]?\d+\s*$/.test(value) ? Number(value) : value;
  return column({ ...row, [name]: read }, name, "a whole number", isNumber);
}

/** Rows with further columns, or others in place of their own. */
export const changed = (rows: readonly Row[], change: (row: Row) => Row): Row[] =>
  rows.map((row) => ({ ...row, ...change(row) }));

export const letters = [..."ABCDEFGHIJKLMNOPQRSTUVWXYZ"] as const;
