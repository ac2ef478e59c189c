/** Bounds of numbers. */
import type { Place, Schema } from "./schema-place";

/** What xgrammar's table of remainders takes, and how many numbers it lists between two bounds. */
const maxMultiple = 1024;
const maxListed = 10_000;

const largest = Number.MAX_SAFE_INTEGER;

/** How many digits behind the point xgrammar looks at in bounds. */
const precision = 6;

function bound(schema: Schema, keyword: string, place: Place): number | undefined {
  const value = schema[keyword];
  if (value === undefined) return undefined;
  if (typeof value !== "number" || !Number.isFinite(value)) return place.fail(`"${keyword}" that is no number`);
  if (Math.abs(value) > largest) place.refuse(keyword, `of ${value} is not supported: it is too large`);
  return value;
}

const highest = (...values: (number | undefined)[]) => pick(Math.max, values);
const lowest = (...values: (number | undefined)[]) => pick(Math.min, values);

function pick(of: (...values: number[]) => number, values: (number | undefined)[]): number | undefined {
  const given = values.filter((value) => value !== undefined);
  return given.length === 0 ? undefined : of(...given);
}

function step(schema: Schema, place: Place): number | undefined {
  const value = schema.multipleOf;
  if (value === undefined) return undefined;
  if (typeof value !== "number" || !(value > 0)) return place.fail('"multipleOf" that is no number above 0');
  if (!Number.isInteger(value)) place.refuse("multipleOf", `of ${value} is not supported: only integers are`);
  return value;
}

export function integerSchema(schema: Schema, place: Place): Schema {
  const above = bound(schema, "exclusiveMinimum", place);
  const below = bound(schema, "exclusiveMaximum", place);
  const least = bound(schema, "minimum", place);
  const most = bound(schema, "maximum", place);
  const minimum = highest(
    least === undefined ? undefined : Math.ceil(least),
    above === undefined ? undefined : Math.floor(above) + 1,
  );
  const maximum = lowest(
    most === undefined ? undefined : Math.floor(most),
    below === undefined ? undefined : Math.ceil(below) - 1,
  );
  if (minimum !== undefined && maximum !== undefined && minimum > maximum)
    place.fail("bounds without an integer between");
  const multipleOf = step(schema, place);
  if (multipleOf === undefined || multipleOf === 1) {
    // A model with nothing to stop it goes on writing digits, to numbers that no program holds.
    return { type: "integer", minimum: minimum ?? -largest, maximum: maximum ?? largest };
  }
  if (multipleOf > maxMultiple)
    place.refuse("multipleOf", `of ${multipleOf} is not supported: at most ${maxMultiple} is`);
  if (minimum === undefined && maximum === undefined) return { type: "integer", multipleOf };
  if (minimum === undefined || maximum === undefined || maximum - minimum > maxListed) {
    place.refuse("multipleOf", `beside bounds is supported where they lie at most ${maxListed} apart`);
  }
  const first = Math.ceil(minimum / multipleOf) * multipleOf;
  if (first > maximum) place.fail(`bounds without a multiple of ${multipleOf} between`);
  const values = [];
  for (let value = first; value <= maximum; value += multipleOf) values.push(value === 0 ? 0 : value);
  return { enum: values };
}

export function numberSchema(schema: Schema, place: Place): Schema {
  // An integer is a number, and the only kind of which remainders can be told digit by digit.
  if (step(schema, place) !== undefined) return integerSchema(schema, place);
  const bounds: Schema = {};
  for (const keyword of ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]) {
    const value = bound(schema, keyword, place);
    if (value === undefined) continue;
    if (Number(value.toFixed(precision)) !== value) {
      place.refuse(keyword, `of ${value} is not supported: at most ${precision} digits behind the point are`);
    }
    bounds[keyword] = value;
  }
  const least = highest(bounds.minimum as number, bounds.exclusiveMinimum as number);
  const most = lowest(bounds.maximum as number, bounds.exclusiveMaximum as number);
  if (least !== undefined && most !== undefined) {
    const isOpen = least === bounds.exclusiveMinimum || most === bounds.exclusiveMaximum;
    if (least > most || (least === most && isOpen)) place.fail("bounds without a number between");
  }
  return { type: "number", ...bounds };
}
