/** Caches in files that mlx-lm reads and writes too. */
import { type Stats, statSync } from "node:fs";
import { basename } from "node:path";
import { replaceFile } from "../atomic-file";
import { ExitCode, UserError } from "../errors";
import * as mx from "../mlx";
import { readSafetensorsHeader } from "../mlx/safetensors-header";
import type { Cache } from "../models";
import { kindNamed, savedKindOf, savedStateOf, stateProblem } from "../nn";
import { LayoutReader, LayoutWriter, printable, quoted } from "./prompt-cache-layout";

export interface PromptCache {
  cache: Cache[];
  /** What was to be remembered; mlx-lm keeps "model" and "tokenizer_config" there. */
  metadata: Record<string, string>;
}

/** Ends of the names that a model or an adapter gives its weights. */
const ofModel = /\.(weight|bias|scales|biases|lora_[ab])$/;

/** Bytes. A thousand layers' states take a tenth of it. */
const longestHeader = 4_000_000;

/** The file's path: MLX adds the ending where it is missing. */
export function promptCachePath(path: string): string {
  return path.endsWith(".safetensors") ? path : `${path}.safetensors`;
}

/**
 * Writes the caches; the file appears whole, or not at all.
 * @throws UserError where it cannot be written, or a kind of cache has no place in such a file
 */
export async function savePromptCache(
  path: string,
  cache: readonly Cache[],
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  await replaceFile(promptCachePath(path), (temporary) =>
    mx.scope(() => {
      const layout = new LayoutWriter(metadata);
      for (const [i, layer] of cache.entries()) layout.add(i, savedKindOf(layer).name, savedStateOf(layer));
      mx.saveSafetensors(temporary, layout.arrays, layout.facts);
    }),
  );
}

/**
 * Reads caches; they belong to the caller.
 * @throws UserError where there is no such file, or it is broken, or of another program or version
 */
export async function loadPromptCache(given: string): Promise<PromptCache> {
  const path = promptCachePath(given);
  const hint = `Make it anew: mlxlm cache_prompt --prompt-cache-file ${path} --prompt TEXT`;
  const refuse = (problem: string): never => {
    throw new UserError(`${basename(path)} is no prompt cache that mlxlm can read: ${printable(problem)}`, { hint });
  };
  await checkFile(path, refuse);
  const { tensors, metadata } = await readSafetensorsHeader(path, hint).catch((error) => {
    throw error instanceof UserError ? new UserError(printable(error.message), error.options) : error;
  });
  if (!metadata.has("2.0") && [...tensors.keys()].some((name) => ofModel.test(name))) {
    throw new UserError(`${basename(path)} is no prompt-cache file: it holds weights of a model`, { hint });
  }
  const layout = new LayoutReader(tensors, metadata, refuse);
  return mx.scope(() => {
    const states = layout.states(mx.loadSafetensors(path).arrays);
    const layers = states.map((state, i) => {
      const name = layout.kindOf(i);
      const kind = kindNamed(name);
      if (!kind) return refuse(`layer ${i} holds no state of a ${quoted(name).slice(1, -1)}: there is no such cache`);
      const problem = stateProblem(kind, state, kindNamed);
      if (problem) return refuse(`layer ${i} holds no state of a ${name}: ${problem}`);
      return () => kind.restore(state as CacheStateList, kindNamed);
    });
    return { cache: layers.map((restore) => restore()), metadata: layout.metadata };
  });
}

type CacheStateList = Parameters<NonNullable<ReturnType<typeof kindNamed>>["restore"]>[0];

/** A pipe would be waited for, and a header of gigabytes read. */
async function checkFile(path: string, refuse: (problem: string) => never): Promise<void> {
  let found: Stats | undefined;
  try {
    found = statSync(path, { throwIfNoEntry: false });
  } catch (error) {
    refuse(`it cannot be looked at (${(error as NodeJS.ErrnoException).code})`);
  }
  if (!found) {
    throw new UserError(`there is no prompt-cache file ${path}`, {
      code: ExitCode.notFound,
      hint: "Make one: mlxlm cache_prompt --prompt-cache-file FILE --prompt TEXT",
    });
  }
  if (!found.isFile()) refuse(found.isDirectory() ? "it is a folder" : "it is a pipe or a device, not a file");
  const prefix = await Bun.file(path)
    .slice(0, 8)
    .arrayBuffer()
    .catch((error) => refuse(`it cannot be opened (${error.code})`));
  if (prefix.byteLength < 8) return;
  const length = new DataView(prefix).getBigUint64(0, true);
  if (length > longestHeader && length < found.size) {
    refuse(`its header has ${length} bytes, and a prompt cache's at most ${longestHeader}`);
  }
}
