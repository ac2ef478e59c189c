/** Which schemas have a value that comes to an end: not one whose required parts hold the schema itself again. */
import { isSchema, type Schema } from "./schema-place";

/** How the schemas that are referred to are called in `$ref`. */
const prefix = "#/$defs/";

/**
 * @param definitions schemas by name, in the form that `checkedSchema` writes
 * @returns the names of those that no text of finite length fits
 */
export function endless(definitions: ReadonlyMap<string, Schema>): string[] {
  const ended = new Set<string>();
  for (let before = -1; before < ended.size; ) {
    before = ended.size;
    for (const [name, schema] of definitions) if (ends(schema, ended)) ended.add(name);
  }
  return [...definitions.keys()].filter((name) => !ended.has(name));
}

/** Whether a value comes to its end, by what is known of the schemas that are referred to. */
function ends(schema: unknown, ended: ReadonlySet<string>): boolean {
  if (!isSchema(schema)) return true;
  const { $ref, anyOf, type, properties = {}, required = [], items, prefixItems = [], minItems = 0 } = schema;
  if (typeof $ref === "string") return ended.has($ref.slice(prefix.length));
  if (Array.isArray(anyOf)) return anyOf.some((one) => ends(one, ended));
  if (type === "object") return (required as string[]).every((name) => ends((properties as Schema)[name], ended));
  if (type !== "array") return true;
  const first = (prefixItems as unknown[]).slice(0, minItems as number);
  return first.every((one) => ends(one, ended)) && (first.length === minItems || ends(items, ended));
}
