import { describe, expect, test } from "bun:test";
import { UserError } from "../../errors";
import { checkedSchema } from "./schema";

const object = (properties: object, more: object = {}) => ({ type: "object", properties, ...more });

describe("refused by keyword and place", () => {
  const cases: [schema: unknown, message: string][] = [
    [{ not: {} }, '"not" at #'],
    [object({ a: { if: {} } }), '"if" at #/properties/a'],
    [object({ "x/y~": { contains: {} } }), '"contains" at #/properties/x~1y~0'],
    [{ type: "array", items: { uniqueItems: true } }, '"uniqueItems" at #/items'],
    [{ $ref: "#/$defs/a", $defs: { a: { dependentRequired: {} } } }, '"dependentRequired" at #/$defs/a'],
    [{ $ref: "other.json" }, '"$ref" at # to "other.json"'],
    [{ $ref: "#/nowhere" }, "which is not there, at #"],
    [{ $ref: "#/$defs/a", minLength: 2, $defs: { a: {} } }, '"minLength" at # beside "$ref"'],
    [{ enum: [1], minimum: 3 }, '"minimum" at # beside "enum"'],
    [{ anyOf: [{}], required: ["a"] }, '"required" at # beside "anyOf"'],
    [{ allOf: [{}, {}] }, '"allOf" at #/allOf with several schemas'],
    [{ oneOf: [{ type: "integer" }, { type: "number" }] }, '"oneOf" at #/oneOf'],
    [{ oneOf: [object({ a: {} }), object({ b: {} })] }, '"oneOf" at #/oneOf'],
    [{ type: "string", format: "idn-email" }, '"format" at # of "idn-email"'],
    [{ type: "string", format: "date", maxLength: 3 }, '"maxLength" at # beside "format"'],
    [{ type: "string", pattern: "^a", minLength: 3 }, '"minLength" at # beside "pattern"'],
    [{ type: "string", pattern: "(?=a)" }, '"pattern" at #'],
    [{ type: "string", pattern: '^"$' }, '"pattern" at #'],
    [{ type: "number", multipleOf: 0.1 }, '"multipleOf" at # of 0.1'],
    [{ type: "number", minimum: 1e-9 }, '"minimum" at # of 1e-9'],
    [{ type: "integer", multipleOf: 3, minimum: 1 }, '"multipleOf" at # beside bounds'],
    [{ type: "object", minProperties: 2 }, '"minProperties" at # of 2'],
    [{ type: "object", patternProperties: { a: {} }, additionalProperties: {} }, '"patternProperties" at # beside'],
    [object({ ab: {} }, { patternProperties: { "^a": {} } }), '"patternProperties" at # that match the property "ab"'],
    [object({ a: {} }, { propertyNames: { maxLength: 2 } }), '"propertyNames" at # beside "properties"'],
    [{ type: "strnig" }, '"strnig" instead of a type at #'],
    [{ minimun: 3 }, '"minimun" at # is not known (minimum?)'],
    [object({ a: false }, { required: ["a"] }), '"a", required and not allowed, at #'],
    [object({}, { required: ["a"], additionalProperties: false }), 'no property "a", which is required, at #'],
    [{ type: "integer", minimum: 5, maximum: 4 }, "bounds without an integer between at #"],
    [{ enum: [] }, '"enum" without values at #'],
    [
      object({ a: { enum: ["x".repeat(60_000)] }, b: { const: "y".repeat(40_000) } }),
      "values of more than 90000 characters together at #/properties/b",
    ],
    [object({ a: { $ref: "#" } }, { required: ["a"] }), "requires itself again without end at #"],
    [
      object(
        { a: { $ref: "#/$defs/a" } },
        {
          $defs: {
            a: object({ b: { $ref: "#/$defs/b" } }, { required: ["b"] }),
            b: { type: "array", minItems: 1, items: { $ref: "#/$defs/a" } },
          },
        },
      ),
      "requires itself again without end at #/$defs/a",
    ],
    [{ anyOf: [{ $ref: "#" }, { $ref: "#/anyOf/0" }] }, "requires itself again without end at #"],
    [{ type: "array", prefixItems: [{ $ref: "#" }], minItems: 1 }, "requires itself again without end at #"],
    [{ type: "string", enum: [1] }, '"enum" without a value of its type at #'],
    [false, "which no value fits, at #"],
    [[], "instead of a schema at #"],
    ["{}", "instead of a schema at #"],
  ];
  test.each(cases)("%j", (schema, message) => {
    expect(() => checkedSchema(schema)).toThrow(UserError);
    expect(() => checkedSchema(schema)).toThrow(message);
  });
});

test("schemas that are nested too deep, or hold themselves", () => {
  let deep: object = {};
  for (let i = 0; i < 200; i++) deep = { type: "array", items: deep };
  expect(() => checkedSchema(deep)).toThrow("more than 100 schemas in each other");
  expect(checkedSchema({ type: "array", items: { $ref: "#" } })).toEqual({
    ...{ type: "array", items: { $ref: "#/$defs/d0" } },
    $defs: { d0: { type: "array", items: { $ref: "#/$defs/d0" } } },
  });
});

test.each<[unknown, unknown]>([
  [true, {}],
  [{ title: "t", "x-any": 1 }, {}],
  [{ type: ["string", "null"] }, { anyOf: [{ type: "string" }, { type: "null" }] }],
  [{ type: "boolean", nullable: true }, { anyOf: [{ type: "boolean" }, { type: "null" }] }],
  [{ type: "string", minimum: 3 }, { type: "string" }],
  [{ const: 3 }, { enum: [3] }],
  [{ type: "array" }, { type: "array", items: {} }],
  [{ type: "object" }, { type: "object", additionalProperties: {} }],
  [
    object({ a: { type: "null" } }),
    { type: "object", properties: { a: { type: "null" } }, additionalProperties: false },
  ],
  [
    { type: "number", multipleOf: 1, minimum: 0, maximum: 9 },
    { type: "integer", minimum: 0, maximum: 9 },
  ],
  [{ type: "integer", multipleOf: 5, minimum: 1, maximum: 11 }, { enum: [5, 10] }],
  [
    { type: "integer", exclusiveMinimum: 1.5, exclusiveMaximum: 4 },
    { type: "integer", minimum: 2, maximum: 3 },
  ],
])("%j becomes what xgrammar reads", (schema, read) => {
  expect(checkedSchema(schema)).toEqual(read as never);
});
