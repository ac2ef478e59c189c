/** Schemas, their places within each other, and what is said of one that cannot be used. */
import { ExitCode, UserError } from "../../errors";

export type Schema = { [keyword: string]: unknown };

export const types = ["null", "boolean", "integer", "number", "string", "array", "object"] as const;
export type Type = (typeof types)[number];

/** Where in a schema something stands, as a JSON pointer. */
export class Place {
  constructor(
    readonly pointer = "#",
    readonly depth = 0,
  ) {}

  at(...steps: (string | number)[]): Place {
    const more = steps.map((step) => `/${String(step).replaceAll("~", "~0").replaceAll("/", "~1")}`);
    return new Place(this.pointer + more.join(""), this.depth + 1);
  }

  /** @param keyword which is not supported here, and why */
  refuse(keyword: string, why = "is not supported"): never {
    throw new UserError(`JSON schema: "${keyword}" at ${this.pointer} ${why}`, {
      code: ExitCode.usage,
      hint: "A grammar cannot hold an answer to it. Leave it out and check the answer yourself, or say it in another way.",
    });
  }

  /** @param what is wrong with the schema itself */
  fail(what: string): never {
    throw new UserError(`JSON schema: ${what} at ${this.pointer}`, { code: ExitCode.usage });
  }
}

export function isSchema(value: unknown): value is Schema {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Reads the schemas within a schema. */
export interface SubschemaReader {
  schema(value: unknown, place: Place): Schema;
}

export function typeOf(value: unknown): Type {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  if (typeof value === "number") return Number.isInteger(value) ? "integer" : "number";
  return typeof value as Type;
}
