/** Whether schemas are so different that no value fits two of them. */
import { isSchema, type Schema, typeOf } from "./schema-place";

/** @param schemas as `checkedSchema` writes them */
export function areApart(schemas: readonly Schema[]): boolean {
  return schemas.every((one, i) => schemas.slice(i + 1).every((other) => apart(one, other)));
}

function apart(a: Schema, b: Schema): boolean {
  const [left, right] = [a.anyOf, b.anyOf];
  if (Array.isArray(left)) return left.every((one) => apart(one, b));
  if (Array.isArray(right)) return right.every((one) => apart(a, one));
  if (Array.isArray(a.enum)) return a.enum.every((value) => !mayFit(value, b));
  if (Array.isArray(b.enum)) return b.enum.every((value) => !mayFit(value, a));
  if (a.type === undefined || b.type === undefined) return false;
  if (!isOneType(a.type, b.type)) return true;
  return a.type === "object" && haveOneApart(a, b);
}

const isNumeric = (type: unknown) => type === "integer" || type === "number";
const isOneType = (a: unknown, b: unknown) => a === b || (isNumeric(a) && isNumeric(b));

function mayFit(value: unknown, schema: Schema): boolean {
  if (Array.isArray(schema.enum)) return schema.enum.some((one) => Bun.deepEquals(one, value));
  return schema.type === undefined || isOneType(schema.type, typeOf(value));
}

/** Objects that both must have a property, whose values are apart. */
function haveOneApart(a: Schema, b: Schema): boolean {
  const [ours, theirs] = [a.properties, b.properties];
  if (!isSchema(ours) || !isSchema(theirs)) return false;
  const required = (schema: Schema) => new Set((schema.required as string[] | undefined) ?? []);
  const both = [...required(a)].filter((name) => required(b).has(name));
  return both.some((name) => apart(ours[name] as Schema, theirs[name] as Schema));
}
