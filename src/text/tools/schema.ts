/** The types that a tool's JSON schema gives its parameters. Tools come with requests: nothing about them is certain. */

import { strip } from "../python-text";

export type Tools = readonly unknown[] | null | undefined;

/** A schema within schemas deeper than this is passed over. */
const MAX_DEPTH = 50;

/** A field of a JSON object, or undefined where there is no such field, or no object. */
function field(value: unknown, name: string): unknown {
  const isObject = typeof value === "object" && value !== null;
  return isObject && Object.hasOwn(value, name) ? (value as Record<string, unknown>)[name] : undefined;
}

/** The schema of a function's parameter, or undefined where no tool declares it. */
export function parameterSchema(tools: Tools, functionName: string, parameter: string): unknown {
  const tool = tools?.map((tool) => field(tool, "function")).find((it) => field(it, "name") === functionName);
  return field(field(field(tool, "parameters"), "properties"), parameter);
}

/** Whether a parameter is declared as text alone. */
export function isText(tools: Tools, functionName: string, parameter: string): boolean {
  return field(parameterSchema(tools, functionName, parameter), "type") === "string";
}

/** A schema's one type in lower case; "" where several are listed, and undefined where there is none. */
export function typeWord(schema: unknown): string | undefined {
  const type = field(schema, "type");
  return typeof type === "string" ? strip(type).toLowerCase() : type === undefined ? undefined : "";
}

/** All types that a value may have by a schema: by type, enum, and the choices of anyOf, oneOf and allOf. */
export function possibleTypes(schema: unknown, depth = 0): Set<string> {
  const types = new Set(ownTypes(schema));
  const choices = ["anyOf", "oneOf", "allOf"].map((name) => field(schema, name)).filter(Array.isArray);
  if (depth < MAX_DEPTH) {
    for (const choice of choices.flat()) for (const type of possibleTypes(choice, depth + 1)) types.add(type);
  }
  return types.size > 0 ? types : new Set(["string"]);
}

function ownTypes(schema: unknown): string[] {
  const type = field(schema, "type");
  const values = field(schema, "enum");
  const names = [...(Array.isArray(type) ? type : [type]), ...(Array.isArray(values) ? values.map(typeOf) : [])];
  return names.filter((name) => typeof name === "string").map((name) => name.toLowerCase());
}

function typeOf(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  return typeof value === "number" ? (Number.isInteger(value) ? "integer" : "number") : typeof value;
}
