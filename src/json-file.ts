/** JSON and text files that come from elsewhere: read whole, within bounds, with errors that name the file and the place. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { z } from "zod";
import { ExitCode, UserError } from "./errors";
import { decodeText, inputFile } from "./input-file";
import { parsePythonJson, specialNumbers } from "./python-json";

export type JsonObject = Record<string, unknown>;

/** Larger than any real configuration: a file of this size is something else. */
const largest = 64 * 2 ** 20;

/** Deeper than any real configuration: parsing much deeper nesting would overflow the stack. */
const deepest = 200;

const again = "Download the model again, or repair the file.";

/** A file that is there and can't be used. */
export function damaged(path: string, problem: string, cause?: unknown): UserError {
  return new UserError(`${path} can't be read: ${problem}.`, {
    code: ExitCode.failure,
    hint: "Fix the file, or download the model again.",
    cause,
  });
}

/**
 * The text of a file, or null where there is none.
 * @param most bytes
 * @throws UserError where it is no regular file, larger than `most`, not UTF-8, or may not be read
 */
export async function readText(path: string, most = largest): Promise<string | null> {
  try {
    const facts = await inputFile(path);
    if (!facts) return null;
    if (facts.size > most)
      throw damaged(path, `it has ${facts.size} bytes, more than the ${most} that such a file may`);
    return decodeText(await readFile(path), path);
  } catch (cause) {
    if (cause instanceof UserError) throw cause;
    throw damaged(path, (cause as NodeJS.ErrnoException).code ?? (cause as Error).message, cause);
  }
}

/** How deep the brackets of a text nest, strings aside. */
function depthOf(text: string): number {
  let depth = 0;
  let most = 0;
  let inString = false;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (inString) {
      if (c === "\\") i++;
      else if (c === '"') inString = false;
    } else if (c === '"') inString = true;
    else if (c === "{" || c === "[") most = Math.max(most, ++depth);
    else if (c === "}" || c === "]") depth--;
  }
  return most;
}

/** `{"__float__": "Infinity"}` stands for a number that JSON cannot write. */
function decodeFloats(key: string, value: unknown): unknown {
  if (key === "__proto__") return undefined;
  if (typeof value !== "object" || value === null || !("__float__" in value)) return value;
  return specialNumbers.get(String(value.__float__)) ?? value;
}

/** @throws Error that says why the text is no JSON of a configuration */
function parse(text: string): unknown {
  if (text.trim() === "") throw new Error("the file is empty");
  if (depthOf(text) > deepest) throw new Error(`it nests deeper than ${deepest} levels`);
  return parsePythonJson(text, decodeFloats);
}

/**
 * The object in a JSON file of `folder`.
 * @throws UserError where the file is missing, no JSON, or no object
 */
export async function readJson(folder: string, name: string): Promise<JsonObject> {
  const text = await readText(join(folder, name));
  if (text === null) {
    throw new UserError(`${folder} has no ${name}`, {
      code: ExitCode.notFound,
      hint: "A model folder holds config.json, tokenizer.json and *.safetensors. Check the path.",
    });
  }
  let value: unknown;
  try {
    value = parse(text);
  } catch (cause) {
    throw new UserError(`${name} of ${folder} is not JSON: ${(cause as Error).message}`, { hint: again, cause });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new UserError(
      `${name} of ${folder} must hold an object, not ${Array.isArray(value) ? "a list" : value === null ? "null" : typeof value}`,
      { hint: again },
    );
  }
  return value as JsonObject;
}

/**
 * A JSON file checked by a schema, or null where there is no such file.
 * @throws UserError that names the file, and the first field that is wrong
 */
export async function readChecked<T>(path: string, schema: z.ZodType<T>): Promise<T | null> {
  const text = await readText(path);
  if (text === null) return null;
  let value: unknown;
  try {
    value = parse(text);
  } catch (cause) {
    const problem = text.trim() === "" ? "the file is empty" : `it is not JSON: ${(cause as Error).message}`;
    throw damaged(path, problem, cause);
  }
  return check(path, value, schema);
}

/** @throws UserError that names the file, and the first field that is wrong */
export function check<T>(path: string, value: unknown, schema: z.ZodType<T>): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  const field = issue.path.length > 0 ? `"${issue.path.join(".")}": ` : "";
  throw damaged(path, `${field}${issue.message}`, parsed.error);
}
