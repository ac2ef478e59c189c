/** What a text of unknown type stands for. */
import { parseJson } from "./json";
import { parseLiteral } from "./literal";
import type { Value } from "./value";

/** The value that a text is by JSON, else as a literal of Python's; undefined for neither. */
export function structure(text: string, { strict = true } = {}): Value | undefined {
  const value = parseJson(text, { strict });
  return value === undefined ? parseLiteral(text) : value;
}

/** The value that a text is, or else the text. */
export function deserialize(text: string): Value {
  const value = structure(text);
  return value === undefined ? text : value;
}
