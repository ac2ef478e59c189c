/** Columns that hold a Python literal as a text. */
import type { Row } from "../../../data/rows";
import { UserError } from "../../../errors";
import { plainLiteral } from "../plain-literal";
import { text } from "./columns";

/** @throws UserError where it is none */
export function literalOf(row: Row, name: string): unknown {
  const value = plainLiteral(text(row, name));
  if (value !== undefined) return value;
  throw new UserError(`the column "${name}" holds no Python literal: ${text(row, name).slice(0, 60)}`, {
    hint: "Check the data.",
  });
}
