/** Ranks that load a model together must load the same one. */
import { readdir, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import type { AbsentFiles } from "../convert/checkpoint";
import { ExitCode, UserError } from "../errors";
import type * as mx from "../mlx";
import { gatherJson } from "../mlx/group-messages";

interface FileFacts {
  bytes: number;
  /** A hash of what is in it, of a large file of some of that; absent where this rank has not downloaded it. */
  content?: string;
}

export type ModelFiles = Readonly<Record<string, FileFacts>>;

const weights = /\.(safetensors|gguf)$/;
/** What decides the text beside the weights. */
const named =
  /^(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|chat_template|adapter_config|model\.safetensors\.index)\.json$|^chat_template\.jinja$|^tokenizer\.model$|^additional_chat_templates\/.+\.jinja$/;

const pieces = 64;
const pieceBytes = 4096;

/** Weights are too large to be read whole for this. Other weights of the same size differ nearly everywhere. */
async function factsOf(path: string): Promise<FileFacts> {
  const file = Bun.file(path);
  const bytes = file.size;
  const isSmall = bytes <= pieces * pieceBytes;
  const starts = isSmall
    ? [0]
    : Array.from({ length: pieces }, (_, i) => Math.floor((i * (bytes - pieceBytes)) / (pieces - 1)));
  const read = starts.map((start) => file.slice(start, isSmall ? bytes : start + pieceBytes).bytes());
  return { bytes, content: Bun.hash(Buffer.concat(await Promise.all(read))).toString(16) };
}

/** What a rank has of a model, or an adapter: its folder, or one file. */
export async function filesOf(path: string, elsewhere: AbsentFiles = new Map()): Promise<ModelFiles> {
  if (!(await stat(path)).isDirectory()) return { [basename(path)]: await factsOf(path) };
  const files: Record<string, FileFacts> = Object.fromEntries(
    [...elsewhere].map(([name, { size }]) => [name, { bytes: size }]),
  );
  const templates = await readdir(join(path, "additional_chat_templates")).catch(() => []);
  const names = [...(await readdir(path)), ...templates.map((name) => `additional_chat_templates/${name}`)];
  for (const name of names.sort()) {
    if (weights.test(name) || named.test(name)) files[name] = await factsOf(join(path, name));
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
  checkSameFiles(gatherJson(group, await filesOf(path)), "adapters");
}

/** @throws UserError that names the rank and the file that differ from what the ranks before it have */
export function checkSameFiles(byRank: readonly ModelFiles[], what: "models" | "adapters" = "models"): void {
  const known: Record<string, FileFacts> = { ...byRank[0] };
  for (const [rank, files] of byRank.entries()) {
    for (const name of new Set([...Object.keys(known), ...Object.keys(files)])) {
      const [wanted, own] = [known[name], files[name]];
      if (wanted && own && isSame(wanted, own)) {
        known[name] = { ...wanted, ...own };
        continue;
      }
      const difference = !own ? "lacks" : !wanted ? "also has" : "has another";
      throw new UserError(`the ranks have different ${what}: rank ${rank} ${difference} ${name}`, {
        code: ExitCode.usage,
        hint: what === "models" ? "Bring the model to all hosts: mlxlm share" : "Bring the adapter to all hosts.",
      });
    }
  }
}

const isSame = (one: FileFacts, other: FileFacts) =>
  one.bytes === other.bytes &&
  (one.content === undefined || other.content === undefined || one.content === other.content);
