/** Ranks that load a model together must load the same one. */
import { readdir, readFile, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import type { AbsentFiles } from "../convert/checkpoint";
import { ExitCode, UserError } from "../errors";
import type * as mx from "../mlx";
import { gatherJson } from "../mlx/group-messages";

/** Of each file: its size, or its hash where it is small enough to be read. */
export type ModelFiles = Readonly<Record<string, string>>;

const counted = /\.(safetensors|gguf)$/;
const hashed = /^(config|tokenizer|tokenizer_config|model\.safetensors\.index)\.json$|^adapter_config\.json$/;

async function filesOf(path: string, elsewhere: AbsentFiles): Promise<ModelFiles> {
  const facts = await stat(path);
  if (!facts.isDirectory()) return { [basename(path)]: `${facts.size} bytes` };
  const files: Record<string, string> = Object.fromEntries(
    [...elsewhere].map(([name, { size }]) => [name, `${size} bytes`]),
  );
  for (const name of (await readdir(path)).sort()) {
    if (counted.test(name)) files[name] = `${(await stat(join(path, name))).size} bytes`;
    else if (hashed.test(name)) files[name] = Bun.hash(await readFile(join(path, name))).toString(16);
  }
  return files;
}

/** All ranks call it; `elsewhere` are files that this one has not downloaded. @throws UserError that names the rank and the file that differ */
export async function checkSameModel(
  group: mx.distributed.Group,
  path: string,
  elsewhere: AbsentFiles = new Map(),
): Promise<void> {
  checkSameFiles(gatherJson(group, await filesOf(path, elsewhere)));
}

/** All ranks call it. @throws UserError likewise */
export async function checkSameAdapter(group: mx.distributed.Group, path: string): Promise<void> {
  checkSameFiles(gatherJson(group, await filesOf(path, new Map())), "adapters");
}

/** @throws UserError that names the rank and the file that differ from the first rank's */
export function checkSameFiles(byRank: readonly ModelFiles[], what: "models" | "adapters" = "models"): void {
  const [first] = byRank as [ModelFiles];
  for (const [rank, files] of byRank.entries()) {
    for (const name of new Set([...Object.keys(first), ...Object.keys(files)])) {
      if (files[name] === first[name]) continue;
      const difference = !files[name] ? "lacks" : !first[name] ? "also has" : "has another";
      throw new UserError(`the ranks have different ${what}: rank ${rank} ${difference} ${name}`, {
        code: ExitCode.usage,
        hint: what === "models" ? "Bring the model to all hosts: mlxlm share" : "Bring the adapter to all hosts.",
      });
    }
  }
}
