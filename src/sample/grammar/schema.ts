/**
 * JSON Schema, as far as a grammar can hold an answer to it. xgrammar passes over keywords that it does not know, or that
 * stand beside others: here they are refused by name and place, and the rest is written in the form that it reads to the
 * letter. A text that fits the outcome fits the schema; some that fit the schema are not written: objects keep the order
 * of their properties, and have no others where the schema does not speak of them.
 */
import { nearest } from "../../nearest";
import { arraySchema } from "./schema-array";
import { endless } from "./schema-ends";
import { integerSchema, numberSchema } from "./schema-numbers";
import { objectSchema } from "./schema-object";
import { isSchema, Place, type Schema, type SubschemaReader, type Type, typeOf, types } from "./schema-place";
import { stringSchema } from "./schema-string";
import { areApart } from "./schemas-apart";

/** Says something about a value, and asks for nothing. */
const annotations = new Set([
  "title",
  "description",
  "default",
  "example",
  "examples",
  "deprecated",
  "readOnly",
  "writeOnly",
  "discriminator",
  "contentEncoding",
  "contentMediaType",
  "$comment",
  "$schema",
  "$id",
  "$anchor",
  "$defs",
  "definitions",
]);

const isAnnotation = (keyword: string) => annotations.has(keyword) || keyword.startsWith("x-");

/** Which keywords speak of which type; of a value of another type they say nothing. */
const keywordsOf: Record<Type, readonly string[]> = {
  null: [],
  boolean: [],
  integer: ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"],
  number: ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"],
  string: ["minLength", "maxLength", "pattern", "format"],
  array: ["items", "prefixItems", "minItems", "maxItems", "uniqueItems", "unevaluatedItems", "additionalItems"],
  object: [
    "properties",
    "required",
    "additionalProperties",
    "patternProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "unevaluatedProperties",
  ],
};
const combining = ["$ref", "const", "enum", "anyOf", "oneOf", "allOf", "type", "nullable"];
const known = new Set([...Object.values(keywordsOf).flat(), ...combining, ...annotations]);

/**
 * Characters of all texts among which there is a choice, at most. xgrammar makes a state of each, and up to 100,000 of them it merges those
 * that are alike; beyond that a mask takes seconds, or no end.
 */
export const maxLiteral = 90_000;

const maxDepth = 100;
const maxSchemas = 20_000;

/**
 * The schema in the form that xgrammar reads to the letter.
 * @throws UserError naming the keyword and its place where a grammar cannot hold to it
 */
export function checkedSchema(schema: unknown): Schema {
  return new Reader(schema).read();
}

class Reader implements SubschemaReader {
  /** The schemas that are referred to, by pointer, under new names. */
  readonly #definitions = new Map<string, { name: string; schema: Schema | null }>();
  #count = 0;
  /** Of values that are listed. */
  #characters = 0;

  constructor(private readonly root: unknown) {}

  read(): Schema {
    const schema = this.schema(this.root, new Place());
    if (this.#definitions.size === 0) return schema;
    const definitions = new Map([...this.#definitions.values()].map((one) => [one.name, one.schema!]));
    const [first] = endless(definitions);
    for (const [pointer, { name }] of this.#definitions) {
      if (name === first) new Place(pointer).fail("a schema that requires itself again without end");
    }
    return { ...schema, $defs: Object.fromEntries(definitions) };
  }

  schema(value: unknown, place: Place): Schema {
    if (place.depth > maxDepth) place.fail(`more than ${maxDepth} schemas in each other`);
    if (++this.#count > maxSchemas) place.fail(`more than ${maxSchemas} schemas`);
    if (value === true) return {};
    if (value === false) place.fail("false, which no value fits,");
    if (!isSchema(value)) return place.fail(`${JSON.stringify(value)} instead of a schema`);
    const keywords = Object.keys(value).filter((keyword) => !isAnnotation(keyword));
    for (const keyword of keywords) this.#checkKeyword(keyword, value[keyword], place);
    if (value.nullable !== true) return this.#asked(value, keywords, place);
    const { nullable, ...rest } = value;
    const asked = this.#asked(
      rest,
      keywords.filter((keyword) => keyword !== "nullable"),
      place,
    );
    return { anyOf: [asked, { type: "null" }] };
  }

  #checkKeyword(keyword: string, value: unknown, place: Place): void {
    if (keyword === "uniqueItems" && value === false) return;
    if (keyword === "nullable" && typeof value !== "boolean") place.fail('"nullable" that is not true or false');
    if (known.has(keyword) && keyword !== "uniqueItems") return;
    const [similar] = nearest(keyword, [...known]);
    place.refuse(keyword, similar && !unsupported.has(keyword) ? `is not known (${similar}?)` : undefined);
  }

  #asked(value: Schema, keywords: readonly string[], place: Place): Schema {
    const alone = (keyword: string, ...more: string[]) => {
      const other = keywords.find((one) => one !== keyword && one !== "nullable" && !more.includes(one));
      if (other) place.refuse(other, `beside "${keyword}" is not supported`);
    };
    if ("$ref" in value) {
      alone("$ref");
      return this.#reference(value.$ref, place);
    }
    for (const keyword of ["const", "enum"] as const) {
      if (!(keyword in value)) continue;
      alone(keyword, "type");
      this.#characters += JSON.stringify(value[keyword])?.length ?? 0;
      if (this.#characters > maxLiteral) place.fail(`values of more than ${maxLiteral} characters together`);
      return finite(keyword, value, place);
    }
    for (const keyword of ["anyOf", "oneOf", "allOf"] as const) {
      if (!(keyword in value)) continue;
      alone(keyword);
      return this.#combined(keyword, value[keyword], place.at(keyword));
    }
    const wanted = wantedTypes(value, keywords, place);
    if (wanted === null) return {};
    const all = wanted.map((type) => this.#typed(type, value, place));
    return all.length === 1 ? all[0]! : { anyOf: all };
  }

  #combined(keyword: "anyOf" | "oneOf" | "allOf", options: unknown, place: Place): Schema {
    if (!Array.isArray(options) || options.length === 0) return place.fail("no list of schemas");
    const schemas = options.flatMap((option, i) =>
      // An alternative that no value fits is none.
      option === false && keyword !== "allOf" ? [] : [this.schema(option, place.at(i))],
    );
    if (schemas.length === 0) place.fail("no schema that a value could fit");
    if (schemas.length === 1) return schemas[0]!;
    if (keyword === "allOf") place.refuse("allOf", "with several schemas is not supported");
    if (keyword === "oneOf") {
      const resolved = schemas.map((schema) => this.#resolved(schema));
      if (!areApart(resolved)) {
        place.refuse("oneOf", "is not supported where a value may fit more than one of its schemas");
      }
    }
    return { anyOf: schemas };
  }

  #typed(type: Type, value: Schema, place: Place): Schema {
    switch (type) {
      case "null":
      case "boolean":
        return { type };
      case "integer":
        return integerSchema(value, place);
      case "number":
        return numberSchema(value, place);
      case "string":
        return stringSchema(value, place);
      case "array":
        return arraySchema(value, place, this);
      case "object":
        return objectSchema(value, place, this);
    }
  }

  #reference(pointer: unknown, place: Place): Schema {
    if (typeof pointer !== "string") return place.fail('"$ref" that is no text');
    if (pointer !== "#" && !pointer.startsWith("#/"))
      place.refuse("$ref", `to ${JSON.stringify(pointer)} is not supported`);
    const known = this.#definitions.get(pointer);
    if (known) return { $ref: `#/$defs/${known.name}` };
    const definition = { name: `d${this.#definitions.size}`, schema: null as Schema | null };
    this.#definitions.set(pointer, definition);
    const depth = place.depth;
    definition.schema = this.schema(this.#pointed(pointer, place), new Place(pointer, depth + 1));
    return { $ref: `#/$defs/${definition.name}` };
  }

  #pointed(pointer: string, place: Place): unknown {
    let value = this.root;
    for (const part of pointer.split("/").slice(1)) {
      const key = decoded(part).replaceAll("~1", "/").replaceAll("~0", "~");
      const found = typeof value === "object" && value !== null && Object.hasOwn(value, key);
      if (!found) place.fail(`"$ref" to ${JSON.stringify(pointer)}, which is not there,`);
      value = (value as Schema)[key];
    }
    return value;
  }

  #resolved(schema: Schema): Schema {
    let found = schema;
    for (let hops = 0; typeof found.$ref === "string" && hops < maxDepth; hops++) {
      const name = found.$ref.slice("#/$defs/".length);
      const definition = [...this.#definitions.values()].find((one) => one.name === name);
      if (!definition?.schema) break;
      found = definition.schema;
    }
    return found;
  }
}

/** Real keywords of JSON Schema: no typing errors. */
const unsupported = new Set([
  "not",
  "if",
  "then",
  "else",
  "dependentRequired",
  "dependentSchemas",
  "dependencies",
  "contains",
  "minContains",
  "maxContains",
  "uniqueItems",
  "$dynamicRef",
  "$dynamicAnchor",
  "$recursiveRef",
  "contentSchema",
]);

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The types that a value may have, null where any will do. */
function wantedTypes(value: Schema, keywords: readonly string[], place: Place): Type[] | null {
  if ("type" in value) {
    const named = Array.isArray(value.type) ? value.type : [value.type];
    for (const type of named) {
      if (!types.includes(type)) place.fail(`${JSON.stringify(type)} instead of a type`);
    }
    if (named.length === 0) place.fail("no type");
    const wanted = [...new Set(named as Type[])];
    return wanted.includes("number") ? wanted.filter((type) => type !== "integer") : wanted;
  }
  // Without a type, keywords of one leave other values free. Those that they speak of will do.
  const spoken = types.filter((type) => type !== "integer" && keywordsOf[type].some((one) => keywords.includes(one)));
  return spoken.length === 0 ? null : spoken;
}

/** One of a few values. */
function finite(keyword: "const" | "enum", schema: Schema, place: Place): Schema {
  const values = keyword === "const" ? [schema.const] : schema.enum;
  if (!Array.isArray(values) || values.length === 0) return place.fail('"enum" without values');
  const wanted = wantedTypes(schema, [], place);
  const fits = (value: unknown) => {
    const type = typeOf(value);
    return wanted === null || wanted.includes(type) || (type === "integer" && wanted.includes("number"));
  };
  const fitting = values.filter(fits);
  if (fitting.length === 0) place.fail(`"${keyword}" without a value of its type`);
  return { enum: fitting };
}
