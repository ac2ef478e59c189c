/** One GGUF file of a folder or a repo, by its quantization or its name. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { ExitCode, UserError } from "../errors";
import { chosenGguf } from "./gguf-files";
import { ofHub } from "./resolve";

/**
 * What `resolveModel` takes for it.
 * @throws UserError where a folder has no such file, or several; or the model is a file already
 */
export async function ggufFileOf(model: string, which: string): Promise<string> {
  const facts = await stat(model).catch(() => null);
  if (facts?.isDirectory()) {
    const files = (await readdir(model, { recursive: true })) as string[];
    return join(model, chosenGguf(files, which, model)[0]!);
  }
  if (facts || model.includes(":")) {
    throw new UserError(`${model} is one file already, and --gguf-file names one of several`, {
      code: ExitCode.usage,
      hint: "Name the folder or the repo, or leave --gguf-file out.",
    });
  }
  return `${ofHub}${model}:${which}`;
}
