/** Models that other programs keep on this machine: Ollama's store and LM Studio's folders. They are read, never changed. */
import { readdir, readFile, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { basename, join } from "node:path";
import { z } from "zod";
import { environment } from "../environment";
import { ExitCode, UserError } from "../errors";
import { nearest } from "../nearest";
import { chosenGguf } from "./gguf-files";

/** What leads a name of Ollama's. */
const ollama = "ollama:";

/** What leads a name of LM Studio's. */
const lmStudio = "lmstudio:";

/**
 * The GGUF file of a name that leads to another program's store; null for other names.
 * @throws UserError where the store has no such model
 */
export async function storedModel(name: string): Promise<string | null> {
  if (name.startsWith(ollama)) return ollamaModel(name.slice(ollama.length));
  if (name.startsWith(lmStudio)) return lmStudioModel(name.slice(lmStudio.length));
  return null;
}

const ollamaStores = () => {
  const own = environment("OLLAMA_MODELS");
  return own ? [own] : [join(homedir(), ".ollama/models"), "/usr/share/ollama/.ollama/models"];
};

const usualHost = "registry.ollama.ai";

/** No part may lead out of the store. */
const isSound = (part: string) => /^[\w.-]+$/.test(part) && !/^\.+$/.test(part);

/** `[HOST/][OWNER/]NAME[:TAG]` as the path of its manifest. */
function manifestPath(name: string): string {
  const colon = name.lastIndexOf(":");
  const [path, tag] = colon < 0 ? [name, "latest"] : [name.slice(0, colon), name.slice(colon + 1)];
  const parts = path.split("/");
  const whole =
    parts.length === 1 ? [usualHost, "library", ...parts] : parts.length === 2 ? [usualHost, ...parts] : parts;
  if (![...whole, tag].every(isSound)) {
    throw new UserError(`"${ollama}${name}" is not a model's name`, {
      code: ExitCode.usage,
      hint: `It is ${ollama}NAME or ${ollama}NAME:TAG, for example ${ollama}qwen3:4b.`,
    });
  }
  return join("manifests", ...whole, tag);
}

const Manifest = z.looseObject({
  layers: z.array(z.looseObject({ mediaType: z.string(), digest: z.string().regex(/^sha256:[0-9a-f]{64}$/) })),
});

const weightsType = "application/vnd.ollama.image.model";

async function ollamaModel(name: string): Promise<string> {
  const own = manifestPath(name);
  for (const store of ollamaStores()) {
    const text = await readFile(join(store, own), "utf8").catch(() => null);
    if (text === null) continue;
    const broken = (problem: string): never => {
      throw new UserError(`Ollama's manifest of ${name} ${problem}: ${join(store, own)}`, {
        hint: `Fetch the model again: ollama pull ${name}`,
      });
    };
    const parsed = Manifest.safeParse(jsonOf(text));
    const layer = parsed.success
      ? parsed.data.layers.find(({ mediaType }) => mediaType === weightsType)
      : broken("is broken");
    if (!layer) return broken("names no weights");
    const blob = join(store, "blobs", layer.digest.replace(":", "-"));
    if (!(await stat(blob).catch(() => null))?.isFile()) broken(`names ${basename(blob)}, which is not there`);
    return blob;
  }
  const known = await ollamaNames();
  const similar = nearest(name, known);
  throw new UserError(`Ollama has no model ${name} here (${ollamaStores().join(", ")})`, {
    code: ExitCode.notFound,
    hint: similar.length > 0 ? `The nearest: ${similar.join(", ")}` : `Fetch it: ollama pull ${name}`,
  });
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

async function ollamaNames(): Promise<string[]> {
  const names: string[] = [];
  for (const store of ollamaStores()) {
    const library = join(store, "manifests", usualHost, "library");
    for (const name of await readdir(library).catch(() => [])) {
      for (const tag of await readdir(join(library, name)).catch(() => [])) names.push(`${name}:${tag}`);
    }
  }
  return names;
}

const lmStudioFolders = () => [join(homedir(), ".lmstudio/models"), join(homedir(), ".cache/lm-studio/models")];

/** `PUBLISHER/MODEL[:QUANTIZATION]`, or a file in the model's folder. */
async function lmStudioModel(name: string): Promise<string> {
  const [path, which] = splitName(name);
  const parts = path.split("/");
  if (parts.length !== 2 || !parts.every(isSound)) {
    throw new UserError(`"${lmStudio}${name}" is not a model's name`, {
      code: ExitCode.usage,
      hint: `It is ${lmStudio}PUBLISHER/MODEL, as LM Studio's folders are called; a quantization may follow: :Q4_K_M.`,
    });
  }
  for (const folder of lmStudioFolders()) {
    const own = join(folder, ...parts);
    const files = await readdir(own).catch(() => null);
    if (!files) continue;
    // A folder of MLX's own form has a configuration.
    if (which === undefined && files.includes("config.json")) return own;
    return join(own, chosenGguf(files, which, own)[0]!);
  }
  throw new UserError(`LM Studio has no model ${path} here (${lmStudioFolders().join(", ")})`, {
    code: ExitCode.notFound,
    hint: "Check the name: it is that of the folder with its publisher's.",
  });
}

/** A name and what of it is wanted, behind a colon. */
export function splitName(name: string): [name: string, which: string | undefined] {
  const colon = name.indexOf(":");
  return colon < 0 ? [name, undefined] : [name.slice(0, colon), name.slice(colon + 1)];
}
