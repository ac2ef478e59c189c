/** The fields of a request's schema, by their paths: "tools.function.name". Words that only tell forms apart are none. */
import type { z } from "zod";

/** What of zod's own description of a schema is read here. */
interface Definition {
  type: string;
  shape?: Record<string, z.core.$ZodType>;
  innerType?: z.core.$ZodType;
  in?: z.core.$ZodType;
  element?: z.core.$ZodType;
  options?: readonly z.core.$ZodType[];
}

export function fieldsOf(schema: z.core.$ZodType, path = ""): string[] {
  const { type, shape = {}, innerType, in: before, element, options = [] } = schema._zod.def as Definition;
  const own = (fields: string[]) => (fields.length > 0 ? [...new Set(fields)] : [path]);
  switch (type) {
    case "object":
      return own(
        Object.entries(shape).flatMap(([name, field]) => fieldsOf(field, path === "" ? name : `${path}.${name}`)),
      );
    case "optional":
    case "nullable":
      return fieldsOf(innerType!, path);
    case "pipe":
      return fieldsOf(before!, path);
    case "array":
      return own(fieldsOf(element!, path));
    case "union":
      return own(options.flatMap((option) => fieldsOf(option, path)));
    case "literal":
      return path.endsWith(".type") ? [] : [path];
    default:
      return [path];
  }
}
