/** JSON files of a checkpoint: read with errors that name the file and the place. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { ExitCode, UserError } from "../errors";
import { parsePythonJson, specialNumbers } from "./python-json";

export type JsonObject = Record<string, unknown>;

/** Larger than any real configuration: a file of this size is something else. */
const largest = 64 * 2 ** 20;

/** Deeper than any real configuration: parsing much deeper nesting would overflow the stack. */
const deepest = 200;

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

/**
 * The object in a JSON file of `folder`.
 * @throws UserError where the file is missing, no JSON, or no object
 */
export async function readJson(folder: string, name: string): Promise<JsonObject> {
  const path = join(folder, name);
  const again = "Download the model again, or repair the file.";
  const facts = await stat(path).catch(() => null);
  if (!facts?.isFile()) {
    throw new UserError(`${folder} has no ${name}`, {
      code: ExitCode.notFound,
      hint: "A model folder holds config.json, tokenizer.json and *.safetensors. Check the path.",
    });
  }
  if (facts.size > largest)
    throw new UserError(`${name} of ${folder} is ${facts.size} bytes: no configuration is that large`, { hint: again });
  const text = await Bun.file(path).text();
  if (depthOf(text) > deepest)
    throw new UserError(`${name} of ${folder} nests deeper than ${deepest} levels`, { hint: again });
  let value: unknown;
  try {
    value = parsePythonJson(text, decodeFloats);
  } catch (error) {
    const reason = text.trim() === "" ? "the file is empty" : (error as Error).message;
    throw new UserError(`${name} of ${folder} is not JSON: ${reason}`, { hint: again });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new UserError(
      `${name} of ${folder} must hold an object, not ${Array.isArray(value) ? "a list" : typeof value}`,
      { hint: again },
    );
  }
  return value as JsonObject;
}
