/** Patterns, formats and lengths of strings. */
import {
  anyCharacter,
  complement,
  confined,
  type Expression,
  intersection,
  maxRepeat,
  parsePattern,
  toPattern,
  UnsupportedExpression,
  unbound,
} from "./regular-expression";
import type { Place, Schema } from "./schema-place";
import { STRING_FORMATS } from "./string-formats";

/** Characters that stand in a JSON string as they are. */
const unescaped = intersection(
  anyCharacter,
  complement([
    [0x00, 0x1f],
    [0x22, 0x22],
    [0x5c, 0x5c],
    [0x7f, 0x7f],
  ]),
);

/** A length, or undefined. */
export function lengthOf(schema: Schema, keyword: string, place: Place): number | undefined {
  const value = schema[keyword];
  if (value === undefined) return undefined;
  if (!Number.isInteger(value) || (value as number) < 0) return place.fail(`"${keyword}" that is no count`);
  // What may be longer than a grammar can count is kept shorter.
  if (keyword.startsWith("max")) return Math.min(value as number, maxRepeat);
  if ((value as number) > maxRepeat) place.refuse(keyword, `of ${value} is not supported: at most ${maxRepeat} is`);
  return value as number;
}

export function stringSchema(schema: Schema, place: Place): Schema {
  const min = lengthOf(schema, "minLength", place) ?? 0;
  const max = lengthOf(schema, "maxLength", place);
  if (max !== undefined && min > max) place.fail('"minLength" above "maxLength"');
  const { pattern, format } = schema;
  if (format !== undefined) {
    if (typeof format !== "string") return place.fail('"format" that is no text');
    const known = Object.hasOwn(STRING_FORMATS, format) ? STRING_FORMATS[format] : undefined;
    if (known === undefined) {
      return place.refuse("format", `of "${format}" is not supported: ${Object.keys(STRING_FORMATS).join(", ")} are`);
    }
    if (pattern !== undefined) place.refuse("pattern", 'beside "format" is not supported');
    // No format but json-pointer allows an empty string.
    if (min > 1 || (min === 1 && format === "json-pointer"))
      place.refuse("minLength", 'beside "format" is not supported');
    if (max !== undefined) place.refuse("maxLength", 'beside "format" is not supported');
    return { type: "string", pattern: toPattern(parsePattern(known).expression) };
  }
  if (pattern !== undefined) {
    if (min > 0) place.refuse("minLength", 'beside "pattern" is not supported');
    if (max !== undefined) place.refuse("maxLength", 'beside "pattern" is not supported');
    return { type: "string", pattern: patternOf(pattern, "pattern", place) };
  }
  if (min === 0 && max === undefined) return { type: "string" };
  const body: Expression = {
    type: "repeat",
    part: { type: "characters", ranges: unescaped },
    min,
    max: max ?? Number.POSITIVE_INFINITY,
  };
  return { type: "string", pattern: toPattern(body) };
}

/** A pattern that is found in a string as one that matches the whole of it. */
export function patternOf(pattern: unknown, keyword: string, place: Place): string {
  if (typeof pattern !== "string") return place.fail(`"${keyword}" that is no text`);
  try {
    return toPattern(confined(unbound(parsePattern(pattern)), unescaped));
  } catch (error) {
    if (error instanceof UnsupportedExpression)
      place.refuse(keyword, `of ${JSON.stringify(pattern)}: ${error.message}`);
    if (error instanceof SyntaxError) place.fail(`"${keyword}" that is no pattern (${error.message})`);
    throw error;
  }
}
