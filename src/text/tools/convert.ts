/** A parameter's text by the types of its schema, the most specific first. */

import { float, integer, narrow } from "../python-numbers";
import { strip } from "../python-text";
import { structure } from "./deserialize";
import { parseJson } from "./json";
import { possibleTypes } from "./schema";
import type { Value } from "./value";

const BOOLEANS: Record<string, boolean> = {
  true: true,
  "1": true,
  yes: true,
  on: true,
  false: false,
  "0": false,
  no: false,
  off: false,
};

/** In the order in which they are tried; each gives undefined for a text that it can't read. */
const CONVERSIONS: [names: string[], convert: (text: string) => Value | undefined][] = [
  [["integer", "int"], integer],
  [["number", "float"], finite],
  [["boolean", "bool"], boolean],
  [["object", "array"], (text) => structure(text, { strict: false })],
  [["string", "str", "text"], (text) => text],
];

/** Reads a text as one of the types that the schema allows; what fits none is JSON, or else text. */
export function convertByTypes(text: string, schema: unknown): Value {
  const lower = text.toLowerCase();
  if (lower === "null") return null;
  const types = possibleTypes(schema);
  if (types.has("null") && (lower === "none" || lower === "nil")) return null;
  for (const [names, convert] of CONVERSIONS) {
    const value = names.some((name) => types.has(name)) ? convert(text) : undefined;
    if (value !== undefined) return value;
  }
  const value = parseJson(text);
  return value === undefined ? text : value;
}

function finite(text: string): Value | undefined {
  const value = float(text);
  return value !== undefined && Number.isFinite(value) ? narrow(value) : undefined;
}

function boolean(text: string): boolean | undefined {
  const word = strip(text.toLowerCase());
  return Object.hasOwn(BOOLEANS, word) ? BOOLEANS[word] : undefined;
}
