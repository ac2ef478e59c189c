/** Schemas as people and their tools write them: from OpenAI's and Pydantic's guides, zod's and TypeBox's output, in kind. */
import type { Schema } from "../../src/sample/grammar/schema-place";

const address = {
  type: "object",
  properties: {
    street: { type: "string", maxLength: 12 },
    city: { type: "string", maxLength: 8 },
    zip: { type: "string", pattern: "^\\d{5}$" },
  },
  required: ["street", "city", "zip"],
  additionalProperties: false,
};

const tree = {
  type: "object",
  properties: {
    value: { type: "integer", minimum: -9, maximum: 9 },
    children: { type: "array", items: { $ref: "#/$defs/leaf" }, maxItems: 2 },
  },
  required: ["value", "children"],
};

const string = (more: Schema = {}): Schema => ({ type: "string", ...more });
const object = (properties: Schema, required = Object.keys(properties), more: Schema = {}): Schema => ({
  type: "object",
  properties,
  required,
  ...more,
});

export const handmade: Record<string, Schema> = {
  "an event": object(
    {
      name: string({ maxLength: 10 }),
      date: string({ format: "date" }),
      participants: { type: "array", items: string({ maxLength: 6 }), maxItems: 3 },
    },
    undefined,
    { additionalProperties: false },
  ),
  "a math answer": object({
    steps: {
      type: "array",
      minItems: 1,
      maxItems: 2,
      items: object({ explanation: string({ maxLength: 9 }), output: string({ maxLength: 9 }) }),
    },
    final_answer: string({ maxLength: 5 }),
  }),
  "a person with an address": object({ name: string({ minLength: 1, maxLength: 9 }), address }),
  "an optional property": object({ a: { type: "integer" }, b: { type: "boolean" } }, ["a"]),
  "all properties optional": object({ a: { type: "integer" }, b: { type: "boolean" }, c: { type: "null" } }, []),
  "nullable by a list of types": object({ note: { type: ["string", "null"], maxLength: 4 } }),
  "nullable as OpenAPI writes it": object({ note: { type: "string", maxLength: 4, nullable: true } }),
  "a union told apart by a kind": {
    oneOf: [
      object({ kind: { const: "cat" }, lives: { type: "integer", minimum: 1, maximum: 9 } }),
      object({ kind: { const: "dog" }, tricks: { type: "array", items: string({ maxLength: 5 }), maxItems: 2 } }),
    ],
  },
  "a union of types": { anyOf: [{ type: "integer" }, string({ maxLength: 5 }), { type: "boolean" }] },
  "Pydantic's Optional": object({
    size: { anyOf: [{ type: "integer", minimum: 0 }, { type: "null" }], default: null, title: "Size" },
  }),
  "Pydantic's reference with a default": object(
    { where: { allOf: [{ $ref: "#/$defs/Address" }], default: {}, description: "Where." } },
    undefined,
    { $defs: { Address: address } },
  ),
  "definitions of draft 7": {
    type: "array",
    items: { $ref: "#/definitions/point" },
    minItems: 1,
    maxItems: 3,
    definitions: { point: object({ x: { type: "integer" }, y: { type: "integer" } }) },
  },
  "a tree": {
    ...tree,
    $defs: { leaf: { ...tree, properties: { ...tree.properties, children: { type: "array", maxItems: 0 } } } },
  },
  "a list that holds itself": {
    $ref: "#/$defs/list",
    $defs: {
      list: { anyOf: [{ type: "null" }, object({ head: { type: "boolean" }, tail: { $ref: "#/$defs/list" } })] },
    },
  },
  "an enum of texts": { type: "string", enum: ["a/b", 'c"d', "é", "line\nbreak", "back\\slash", ""] },
  "an enum of all kinds": { enum: [1, -1.5, 1e-7, 1e21, null, true, "x", [1, { a: 2 }], {}] },
  "a constant object": { const: { a: [1, 2.5], b: null, "c d": "e" } },
  "integers between": { type: "integer", minimum: -17, maximum: 1234 },
  "integers above": { type: "integer", exclusiveMinimum: 41 },
  "integers below": { type: "integer", maximum: -5 },
  "integers between fractions": { type: "integer", minimum: 0.5, maximum: 9.5 },
  multiples: { type: "integer", multipleOf: 7 },
  "multiples between": { type: "integer", multipleOf: 25, minimum: -100, maximum: 130 },
  "numbers between": { type: "number", minimum: -1.5, maximum: 2.25 },
  "numbers of a unit": { type: "number", exclusiveMinimum: 0, exclusiveMaximum: 1 },
  "numbers above": { type: "number", minimum: 100.125 },
  "numbers below": { type: "number", exclusiveMaximum: -0.5 },
  "any number": { type: "number" },
  "strings of a length": string({ minLength: 3, maxLength: 5 }),
  "strings of a least length": string({ minLength: 4 }),
  "a pattern that is bound": string({ pattern: "^[A-Z][a-z]{2,4}(-[0-9]+)?$" }),
  "a pattern that is not bound": string({ pattern: "b.d" }),
  "a pattern bound at its beginning": string({ pattern: "^https?://" }),
  "a pattern of alternatives": string({ pattern: "^a|b$" }),
  "a pattern with classes": string({ pattern: '^[^a-z\\s"]\\W\\D[\\w.-]\\u00e9[^\\x00-\\x7f]{1,2}$' }),
  "a pattern with special characters": string({ pattern: "^[\\^\\]\\-\\[]+[\\^][-a][\\/.]\\^\\$\\{\\}\\|\\(\\)$" }),
  "a pattern with lazy and empty parts": string({ pattern: "^(?:a*?|)(b{0}|c)(?<name>d)?$" }),
  ...Object.fromEntries(
    ["date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid", "json-pointer"].map(
      (format) => [`a ${format}`, string({ format })],
    ),
  ),
  "a tuple": { type: "array", prefixItems: [{ type: "integer" }, string({ maxLength: 3 })], items: false },
  "a tuple with more": {
    type: "array",
    prefixItems: [{ type: "integer" }, { type: "null" }],
    items: { type: "boolean" },
    minItems: 3,
    maxItems: 4,
  },
  "a tuple of draft 7": {
    type: "array",
    items: [{ type: "integer" }, { type: "null" }],
    additionalItems: { type: "boolean" },
    maxItems: 3,
  },
  "a tuple cut short": {
    type: "array",
    prefixItems: [{ type: "integer" }, { type: "null" }, { type: "null" }],
    maxItems: 2,
  },
  "an array of at least two": { type: "array", items: { type: "boolean" }, minItems: 2, maxItems: 4 },
  "an empty array": { type: "array", maxItems: 0 },
  "a map": { type: "object", additionalProperties: { type: "integer" }, maxProperties: 3 },
  "a map by pattern": {
    type: "object",
    patternProperties: { "^[a-c]{2}$": { type: "boolean" } },
    additionalProperties: false,
    maxProperties: 2,
  },
  "a map of known names": {
    type: "object",
    propertyNames: { enum: ["x", "y", "z"] },
    additionalProperties: { type: "integer" },
    maxProperties: 3,
  },
  "named properties and others": object({ id: { type: "integer" } }, undefined, {
    additionalProperties: { type: "boolean" },
    maxProperties: 3,
  }),
  "named properties and a pattern": object({ id: { type: "integer" } }, undefined, {
    patternProperties: { "^x-": { type: "boolean" } },
    additionalProperties: false,
    maxProperties: 3,
  }),
  "a required name without a schema": { type: "object", required: ["q"], properties: { p: { type: "null" } } },
  "at least one of two": object({ a: { type: "integer" }, b: { type: "integer" } }, [], { minProperties: 1 }),
  "at most two of three": object({ a: { type: "null" }, b: { type: "null" }, c: { type: "null" } }, ["b"], {
    maxProperties: 2,
  }),
  "at least two of four": object(
    { a: { type: "null" }, b: { type: "null" }, c: { type: "null" }, d: { type: "null" } },
    [],
    { minProperties: 2, maxProperties: 3 },
  ),
  "a forbidden property": { type: "object", properties: { a: { type: "null" }, b: false } },
  "odd names": object({
    "a b": { type: "null" },
    'q"uote': { type: "null" },
    "sl/ash~": { type: "null" },
    ü: { type: "null" },
    "": { type: "null" },
    __proto__x: { type: "null" },
  }),
  "no type, by its keywords": { properties: { a: { minimum: 3 }, b: { maxLength: 2 } }, required: ["a", "b"] },
  "annotations of all kinds": {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    $id: "x",
    title: "t",
    description: "d",
    $comment: "c",
    examples: [1],
    default: 2,
    deprecated: true,
    readOnly: true,
    "x-order": 1,
    type: "integer",
  },
  "a uniqueItems that asks for nothing": { type: "array", items: { type: "integer" }, uniqueItems: false, maxItems: 2 },
};
