/** config.json as the arguments of an architecture, and errors that name the field. */
import type { z } from "zod";
import { UserError } from "../errors";
import { withOlderFields } from "./older-fields";

/**
 * config.json as the arguments of an architecture.
 * @param stated its fields, as older programs or as transformers 5 name them
 * @param source what the error calls the file's place: a folder or repo
 * @throws UserError that names the first wrong field, its value and what was expected
 */
export function parseArgs<T>(schema: z.ZodType<T>, stated: object, source: string): T {
  const config = withOlderFields(stated as Record<string, unknown>);
  const parsed = schema.safeParse(config);
  const result = parsed.success ? parsed : (withoutNulls(schema, config, parsed.error.issues) ?? parsed);
  if (result.success) {
    const absurd = absurdNumber(result.data);
    if (!absurd) return result.data;
    const [field, value] = absurd;
    throw new UserError(`config.json of ${source}: "${field}" is ${value}, which no model can have`, {
      hint: nextStep(source),
    });
  }
  const [first, ...others] = result.error.issues;
  const rest = others.length > 0 ? ` (and ${others.length} more)` : "";
  throw new UserError(`config.json of ${source}: ${describe(first!, config)}${rest}`, {
    hint: nextStep(source),
    cause: result.error,
  });
}

/** The same where fields that must not be null are left out: programs write null for what they leave at its default. */
function withoutNulls<T>(schema: z.ZodType<T>, config: object, issues: readonly z.core.$ZodIssue[]) {
  const paths = issues.map(({ path }) => path).filter((path) => path.length > 0 && valueAt(config, path) === null);
  if (paths.length === 0) return null;
  const rest = structuredClone(config);
  for (const path of paths) delete (valueAt(rest, path.slice(0, -1)) as Record<PropertyKey, unknown>)[path.at(-1)!];
  const result = schema.safeParse(rest);
  return result.success ? result : null;
}

const valueAt = (config: object, path: readonly PropertyKey[]): unknown =>
  path.reduce<unknown>((node, key) => (node as Record<PropertyKey, unknown> | null | undefined)?.[key], config);

/** A model of the cache can be downloaded again; a folder of one's own is not for us to remove. */
function nextStep(source: string): string {
  const cached = /[\\/]models--([^\\/]+)[\\/]snapshots[\\/]/.exec(source)?.[1]?.replaceAll("--", "/");
  const repo = cached ?? (/^[\w-][\w.-]*\/[\w.-]+$/.test(source) ? source : undefined);
  return repo === undefined ? "Fix the file." : `Fix the file, or download the model again: mlxlm models rm ${repo}`;
}

/** Beyond these float32 overflows or vanishes in what is computed of a number. Infinity says "no limit" where it may stand. */
const sane = { largest: 1e15, smallest: 1e-15 };

/** The first number of the arguments that is beyond all bounds, with its field's path. */
function absurdNumber(value: unknown, path: readonly string[] = []): [field: string, value: number] | null {
  if (typeof value === "number") {
    const size = Math.abs(value);
    const isSane = value === 0 || !Number.isFinite(value) || (size <= sane.largest && size >= sane.smallest);
    return isSane ? null : [path.join("."), value];
  }
  if (typeof value !== "object" || value === null) return null;
  for (const [key, item] of Object.entries(value)) {
    const found = absurdNumber(item, [...path, key]);
    if (found) return found;
  }
  return null;
}

function describe(issue: z.core.$ZodIssue, config: object): string {
  const value = valueAt(config, issue.path);
  const field = `"${issue.path.join(".")}"`;
  if (issue.code === "invalid_union") return describe(nearestBranch(issue, value), config);
  if (issue.code === "unrecognized_keys") {
    return `${field} has ${issue.keys.map((key) => `"${key}"`).join(", ")}, which mlxlm does not know and which may change the result`;
  }
  if (issue.code === "custom") return `${field} ${issue.message}`;
  if (value === undefined) return `${field} is missing`;
  return `${field} is ${JSON.stringify(value)}, but must be ${expectation(issue)}`;
}

/** What is wrong with a field of several forms: the first is flat, the last is nested. */
function nearestBranch(issue: z.core.$ZodIssueInvalidUnion, value: unknown): z.core.$ZodIssue {
  const hasObjects =
    typeof value === "object" && value !== null && Object.values(value).some((one) => one?.constructor === Object);
  const branch = issue.errors[hasObjects ? issue.errors.length - 1 : 0]!;
  return { ...branch[0]!, path: [...issue.path, ...branch[0]!.path] } as z.core.$ZodIssue;
}

function expectation(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case "invalid_type":
      return (
        { int: "an integer", number: "a number", string: "a text", boolean: "true or false", array: "a list" }[
          issue.expected as string
        ] ?? `of type ${issue.expected}`
      );
    case "too_small":
      return `${issue.inclusive ? "at least" : "more than"} ${issue.minimum}`;
    case "too_big":
      return `${issue.inclusive ? "at most" : "less than"} ${issue.maximum}`;
    case "invalid_value":
      return `one of ${issue.values.map((value) => JSON.stringify(value)).join(", ")}`;
    default:
      return `something else: ${issue.message}`;
  }
}
