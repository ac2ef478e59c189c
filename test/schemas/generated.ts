/** Schemas by chance, of all that a grammar can hold an answer to. */
import fc from "fast-check";
import type { Schema } from "../../src/sample/grammar/schema-place";

const name = fc.stringMatching(/^[a-z]{1,4}$/);
const text = fc.string({ maxLength: 4, unit: "grapheme" });

/** Two counts in order, either of which may be missing under its keyword. */
const range = (low: string, high: string, most: number) =>
  fc
    .tuple(fc.option(fc.nat(most)), fc.option(fc.nat(most)))
    .map(([a, b]) => (a !== null && b !== null && a > b ? [b, a] : [a, b]))
    .map(([a, b]): Schema => ({ ...(a !== null && { [low]: a }), ...(b !== null && { [high]: b }) }));

const string: fc.Arbitrary<Schema> = fc.oneof(
  range("minLength", "maxLength", 5).map((lengths) => ({ type: "string", maxLength: 6, ...lengths })),
  fc
    .constantFrom("^[a-z]{1,3}$", "^\\d+$", "ab?c", "^(x|yz)*$", "^\\S{2}$", "[^b]$")
    .map((pattern) => ({ type: "string", pattern })),
  fc.constantFrom("date", "time", "ipv4", "uuid", "hostname", "email").map((format) => ({ type: "string", format })),
);

const bound = fc.integer({ min: -5000, max: 5000 });
const decimal = bound.map((value) => value / 8);
const integer: fc.Arbitrary<Schema> = fc.oneof(
  fc.tuple(bound, fc.nat(500)).map(([minimum, more]) => ({ type: "integer", minimum, maximum: minimum + more })),
  bound.map((exclusiveMinimum) => ({ type: "integer", exclusiveMinimum })),
  bound.map((maximum) => ({ type: "integer", maximum })),
  fc.integer({ min: 1, max: 40 }).map((multipleOf) => ({ type: "integer", multipleOf })),
  fc
    .tuple(bound, fc.integer({ min: 1, max: 40 }))
    .map(([minimum, multipleOf]) => ({ type: "integer", minimum, maximum: minimum + 100, multipleOf })),
);
const number: fc.Arbitrary<Schema> = fc.oneof(
  fc
    .tuple(decimal, fc.integer({ min: 1, max: 999 }))
    .map(([minimum, more]) => ({ type: "number", minimum, exclusiveMaximum: minimum + more / 16 })),
  decimal.map((exclusiveMinimum) => ({ type: "number", exclusiveMinimum })),
  decimal.map((maximum) => ({ type: "number", maximum })),
  fc.constant({ type: "number" }),
);
const finite: fc.Arbitrary<Schema> = fc.oneof(
  fc
    .array(fc.oneof(text, fc.integer(), fc.double({ noNaN: true, noDefaultInfinity: true }), fc.constant(null)), {
      minLength: 1,
      maxLength: 4,
    })
    .map((values) => ({ enum: values })),
  fc.jsonValue({ maxDepth: 2, stringUnit: "grapheme" }).map((value) => ({ const: value })),
);
const plain: fc.Arbitrary<Schema> = fc.constantFrom<Schema>(
  { type: "boolean" },
  { type: "null" },
  { type: ["boolean", "null"] },
);

/** Values of different types: one fits a single one of them. */
const apart = fc.tuple(string, integer, plain).map(([a, b, c]): Schema => ({ oneOf: [a, b, c] }));

export const schemas: fc.Arbitrary<Schema> = fc.letrec<{ schema: Schema; array: Schema; object: Schema }>((tie) => ({
  schema: fc.oneof(
    { maxDepth: 3, depthIdentifier: "schema" },
    string,
    integer,
    number,
    finite,
    plain,
    apart,
    tie("array"),
    tie("object"),
  ),
  array: fc.oneof(
    fc
      .tuple(tie("schema"), range("minItems", "maxItems", 3))
      .map(([items, counts]): Schema => ({ type: "array", items, maxItems: 3, ...counts })),
    fc
      .array(tie("schema"), { minLength: 1, maxLength: 3 })
      .map((prefixItems): Schema => ({ type: "array", prefixItems, items: false })),
  ),
  object: fc.oneof(
    fc
      .tuple(
        fc.uniqueArray(fc.tuple(name, tie("schema"), fc.boolean()), { maxLength: 4, selector: ([key]) => key }),
        fc.constantFrom(undefined, false),
      )
      .map(
        ([entries, additionalProperties]): Schema => ({
          type: "object",
          properties: Object.fromEntries(entries.map(([key, value]) => [key, value])),
          required: entries.filter(([, , isRequired]) => isRequired).map(([key]) => key),
          ...(additionalProperties === false && { additionalProperties }),
        }),
      ),
    tie("schema").map((additionalProperties): Schema => ({ type: "object", additionalProperties, maxProperties: 3 })),
  ),
})).schema;
