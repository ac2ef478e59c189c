/** Properties of objects. */
import { isSchema, type Place, type Schema, type SubschemaReader } from "./schema-place";
import { lengthOf, patternOf } from "./schema-string";

export function objectSchema(schema: Schema, place: Place, reader: SubschemaReader): Schema {
  const properties = propertiesOf(schema, place, reader);
  const required = requiredOf(schema, place);
  const max = lengthOf(schema, "maxProperties", place);
  const min = lengthOf(schema, "minProperties", place) ?? 0;
  const patterns = patternsOf(schema, place, reader);
  const others = othersOf(schema, place, reader, properties.size === 0 && patterns.size === 0);

  for (const name of required) {
    if (properties.has(name)) continue;
    if (patterns.size > 0)
      place.refuse("required", `of ${JSON.stringify(name)}, which "properties" lacks, is not supported`);
    if (others === false && "additionalProperties" in schema)
      place.fail(`no property ${JSON.stringify(name)}, which is required,`);
    properties.set(name, others || {});
  }
  checkNames(schema, place, properties, patterns, others);
  if (max !== undefined && (min > max || required.length > max)) place.fail('too small a "maxProperties"');
  // A name that is free may come twice, and count once.
  if ((others !== false || patterns.size > 0) && min > Math.max(required.length, 1)) {
    place.refuse("minProperties", `of ${min} is supported where all properties are named`);
  }
  if (others === false && patterns.size === 0 && min > properties.size)
    place.fail('"minProperties" above their number');

  const names = schema.propertyNames;
  return {
    type: "object",
    ...(properties.size > 0 && { properties: Object.fromEntries(properties) }),
    ...(required.length > 0 && { required }),
    ...(patterns.size > 0 && { patternProperties: Object.fromEntries(patterns) }),
    ...(isSchema(names) &&
      others !== false && { propertyNames: namesSchema(names, place.at("propertyNames"), reader) }),
    additionalProperties: others,
    ...(min > required.length && { minProperties: min }),
    ...(max !== undefined && { maxProperties: max }),
  };
}

function propertiesOf(schema: Schema, place: Place, reader: SubschemaReader): Map<string, Schema> {
  const { properties = {} } = schema;
  if (!isSchema(properties)) return place.fail('"properties" that is no object');
  // A property that no value fits may not be there.
  const entries = Object.entries(properties).filter(([, value]) => value !== false);
  return new Map(entries.map(([name, value]) => [name, reader.schema(value, place.at("properties", name))]));
}

function requiredOf(schema: Schema, place: Place): string[] {
  const { required = [], properties } = schema;
  if (!Array.isArray(required) || required.some((name) => typeof name !== "string")) {
    return place.fail('"required" that is no list of names');
  }
  for (const name of required) {
    if (isSchema(properties) && properties[name] === false)
      place.fail(`${JSON.stringify(name)}, required and not allowed,`);
  }
  return [...new Set(required as string[])];
}

function patternsOf(schema: Schema, place: Place, reader: SubschemaReader): Map<string, Schema> {
  const { patternProperties = {} } = schema;
  if (!isSchema(patternProperties)) return place.fail('"patternProperties" that is no object');
  const inside = place.at("patternProperties");
  const patterns = Object.entries(patternProperties).map(([pattern, value]): [string, Schema] => [
    patternOf(pattern, "patternProperties", place),
    reader.schema(value, inside.at(pattern)),
  ]);
  const [first, ...more] = patterns;
  // A name that two patterns match has to fit the schemas of both.
  if (more.some(([, value]) => !Bun.deepEquals(value, first![1]))) {
    place.refuse("patternProperties", "with several schemas is not supported");
  }
  return new Map(patterns);
}

/** The schema of properties without a name, false where there may be none. */
function othersOf(schema: Schema, place: Place, reader: SubschemaReader, isBare: boolean): Schema | false {
  const keyword = "additionalProperties" in schema ? "additionalProperties" : "unevaluatedProperties";
  const value = schema[keyword];
  if (value === false) return false;
  if (value !== undefined) return reader.schema(value, place.at(keyword));
  return isBare || isSchema(schema.propertyNames) ? {} : false;
}

/** Names that are free must not be those of other properties: their values would be of another kind. */
function checkNames(
  schema: Schema,
  place: Place,
  properties: ReadonlyMap<string, Schema>,
  patterns: ReadonlyMap<string, Schema>,
  others: Schema | false,
): void {
  if (schema.propertyNames !== undefined && schema.propertyNames !== true) {
    if (!isSchema(schema.propertyNames)) place.refuse("propertyNames");
    if (properties.size > 0) place.refuse("propertyNames", 'beside "properties" is not supported');
    if (patterns.size > 0) place.refuse("propertyNames", 'beside "patternProperties" is not supported');
  }
  if (patterns.size === 0) return;
  if (others !== false) place.refuse("patternProperties", 'beside "additionalProperties" is not supported');
  for (const pattern of Object.keys(schema.patternProperties as Schema)) {
    const name = [...properties.keys()].find((one) => new RegExp(pattern, "u").test(one));
    if (name !== undefined) {
      place.refuse("patternProperties", `that match the property ${JSON.stringify(name)} are not supported`);
    }
  }
}

/** A schema of names, which are strings whatever it says. */
function namesSchema(names: Schema, place: Place, reader: SubschemaReader): Schema {
  const combines = ["$ref", "anyOf", "oneOf", "allOf"].some((keyword) => keyword in names);
  const read = reader.schema(
    combines || "enum" in names || "const" in names ? names : { ...names, type: "string" },
    place,
  );
  if (combines) place.refuse("propertyNames", "that combine schemas are not supported");
  if (Array.isArray(read.enum) && read.enum.some((name) => typeof name !== "string"))
    place.fail("a name that is no text");
  return read;
}
