/** JSON as mlx-lm writes it. */
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
