/** JSON as mlx-lm writes it. */
import { parsePythonJson } from "../python-json";
import { floatText } from "../text/python-numbers";

/** A value as text, with the numbers that JSON has no word for as mlx-lm writes them. */
export function writePythonJson(value: object, indent: number): string {
  return JSON.stringify(value, writeNumber, indent);
}

/** JSON.stringify takes such an object for the text of a number. */
const rawJson = (JSON as typeof JSON & { rawJSON(text: string): unknown }).rawJSON;

function writeNumber(_: string, value: unknown): unknown {
  if (typeof value !== "number" || Number.isInteger(value)) return value;
  if (Number.isFinite(value)) return rawJson(floatText(value));
  return { __float__: Number.isNaN(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity" };
}

/**
 * The value with whole numbers as floats (`10000.0`) where a JSON text has the same number as one in the same place, as
 * Python's json reads and writes it. A text that is no JSON of Python's changes nothing.
 */
export function asWritten(value: object, text: string): object {
  try {
    return withFloats(value, parsePythonJson(text, markFloat)) as object;
  } catch {
    return value;
  }
}

class Float {
  constructor(readonly value: number) {}
}

function markFloat(_: string, value: unknown, context?: { source?: string }): unknown {
  return Number.isInteger(value) && /[.eE]/.test(context?.source ?? "") ? new Float(value as number) : value;
}

function withFloats(value: unknown, like: unknown): unknown {
  if (like instanceof Float) return value === like.value ? rawJson(floatText(like.value)) : value;
  if (typeof value !== "object" || value === null || typeof like !== "object" || like === null) return value;
  if (Array.isArray(value)) return Array.isArray(like) ? value.map((one, i) => withFloats(one, like[i])) : value;
  const known = like as Record<string, unknown>;
  return Object.fromEntries(
    Object.entries(value).map(([key, one]) => [key, Object.hasOwn(known, key) ? withFloats(one, known[key]) : one]),
  );
}
