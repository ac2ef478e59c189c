/** A model that lies on this machine: a folder or a GGUF file, perhaps in the store of another program. */
import { open, readdir, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { ExitCode, UserError } from "../errors";
import { storedModel } from "./other-stores";

const isNamedGguf = (name: string) => /\.gguf$/i.test(name);

/**
 * Its path; null where nothing is there, so that the name may be a repo's.
 * @throws UserError for a file of another kind, and for a GGUF file that is not there
 */
export async function localModel(name: string): Promise<string | null> {
  const stored = await storedModel(name);
  if (stored !== null) return stored;
  const facts = await stat(name).catch(() => null);
  if (facts?.isDirectory()) return resolve(name);
  if (facts?.isFile() && (isNamedGguf(name) || (await beginsAsGguf(name)))) return resolve(name);
  if (facts) {
    throw new UserError(`${name} is a file, but a model is a folder or a GGUF file`, {
      code: ExitCode.usage,
      hint: "Name the folder that holds config.json and the weights.",
    });
  }
  if (!isNamedGguf(name)) return null;
  const others = (await readdir(dirname(name)).catch(() => [])).filter(isNamedGguf);
  throw new UserError(`there is no file ${name}`, {
    code: ExitCode.notFound,
    hint: others.length > 0 ? `That folder has ${others.slice(0, 3).join(", ")}` : "Check the path.",
  });
}

async function beginsAsGguf(path: string): Promise<boolean> {
  const file = await open(path).catch(() => null);
  if (!file) return false;
  try {
    const bytes = new Uint8Array(4);
    await file.read(bytes, 0, 4, 0);
    return String.fromCharCode(...bytes) === "GGUF";
  } finally {
    await file.close();
  }
}
