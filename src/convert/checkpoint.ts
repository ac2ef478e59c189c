/** The weight files of a checkpoint folder, checked before anything is loaded. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { ExitCode, UserError } from "../errors";
import { readJson } from "../json-file";
import { readSafetensorsHeader, type SafetensorsHeader } from "../mlx/safetensors-header";
import { warn } from "../warnings";

export interface Shard {
  name: string;
  /** null where the file is not here. */
  path: string | null;
  header: SafetensorsHeader;
}

/** What is known of a weight file that is not here. */
export interface AbsentFile {
  header: SafetensorsHeader;
  /** Bytes. */
  size: number;
}

/** By name: another process has what is in them. */
export type AbsentFiles = ReadonlyMap<string, AbsentFile>;

export interface Shards {
  shards: Shard[];
  /** What to say where tensors turn out to be missing: a file that the index names and the folder lacks. */
  lacking: UserError | null;
}

export const indexName = "model.safetensors.index.json";

/**
 * The shards of a folder with their checked headers: those that the index names. Where there is no index, or it is of
 * another build of the model, all `model*.safetensors`, as mlx-lm reads them.
 * @param elsewhere files that the index names and that may be missing
 * @throws UserError for a folder without weights, a shard that is unsound, a tensor that is in two shards, or an index
 * that names files outside the folder
 */
export async function openCheckpoint(folder: string, elsewhere: AbsentFiles = new Map()): Promise<Shards> {
  const names = await readdir(folder).catch(() => [] as string[]);
  const present: string[] = [];
  for (const name of names.filter((name) => /^model.*\.safetensors$/.test(name)).sort()) {
    if (await isFile(join(folder, name))) present.push(name);
  }
  const index = names.includes(indexName) ? await readIndex(folder) : null;
  if (index) {
    const listed = [...new Set(index.values())].sort();
    for (const name of listed) checkName(folder, name);
    const absent = await firstAbsent(
      folder,
      listed.filter((name) => !elsewhere.has(name)),
    );
    const lacking = absent === undefined ? null : lacks(folder, absent);
    if (present.length === 0 && lacking) throw lacking;
    if (!lacking && unlistedParts(listed, present).length === 0) {
      const shards = await openAll(folder, listed, elsewhere);
      if (describes(index, shards)) return { shards, lacking: null };
    }
    warn(`${indexName} of ${folder} is of other files than the folder has: it is passed over`);
    return { shards: await openAll(folder, present), lacking };
  }
  if (present.length === 0) {
    const other = names.find((name) => /\.(bin|pt|pth|gguf|npz)$/.test(name));
    throw new UserError(`${folder} has no weights (model*.safetensors)${other ? `, only ${other}` : ""}`, {
      code: ExitCode.notFound,
      hint: "mlxlm reads safetensors. Check the path, or download the model again.",
    });
  }
  return { shards: await openAll(folder, present), lacking: null };
}

/** The file of each tensor. @throws UserError for an index of another form */
export async function readIndex(folder: string): Promise<Map<string, string>> {
  const { weight_map: map } = await readJson(folder, indexName);
  const entries = typeof map === "object" && map !== null ? Object.entries(map) : [];
  if (entries.length === 0 || entries.some(([, file]) => typeof file !== "string")) {
    throw new UserError(`${indexName} of ${folder}: "weight_map" must name a file for each tensor`, {
      hint: "Download the model again.",
    });
  }
  return new Map(entries as [string, string][]);
}

/** What a user links into a folder is the user's own; what a downloaded index writes may not lead outside. */
function checkName(folder: string, name: string): void {
  if (name !== "" && name !== "." && name !== ".." && !/[\\/\0]/.test(name)) return;
  throw new UserError(`${indexName} of ${folder} names the file ${JSON.stringify(name)}, which is outside the folder`, {
    hint: "Do not use this model: its files try to reach others.",
  });
}

/** Of a link, what it leads to. */
const isFile = async (path: string) => (await stat(path).catch(() => null))?.isFile() ?? false;

async function firstAbsent(folder: string, files: readonly string[]): Promise<string | undefined> {
  const found = await Promise.all(files.map((name) => isFile(join(folder, name))));
  return files.find((_, i) => !found[i]);
}

const lacks = (folder: string, name: string) =>
  new UserError(`${folder} lacks the weight file ${name}`, {
    code: ExitCode.notFound,
    hint: "The download may have been cut off: download the model again.",
  });

/** Files that are parts of the same whole as a listed one, by their numbers: `-00002-of-00003`. */
function unlistedParts(listed: readonly string[], present: readonly string[]): string[] {
  const wholeOf = (name: string) => /-of-(\d+)\.safetensors$/.exec(name)?.[1];
  const wholes = new Set(listed.map(wholeOf));
  return present.filter((name) => !listed.includes(name) && wholeOf(name) && wholes.has(wholeOf(name)));
}

async function openAll(folder: string, files: readonly string[], elsewhere: AbsentFiles = new Map()): Promise<Shard[]> {
  const shards = await Promise.all(
    files.map(async (name): Promise<Shard> => {
      const known = elsewhere.get(name);
      if (known) return { name, path: null, header: known.header };
      const path = join(folder, name);
      return { name, path, header: await readSafetensorsHeader(path) };
    }),
  );
  const home = new Map<string, string>();
  for (const { name, header } of shards) {
    for (const tensor of header.tensors.keys()) {
      const before = home.get(tensor);
      if (before !== undefined) {
        throw new UserError(`tensor "${tensor}" of ${folder} is in two files: ${before} and ${name}`, {
          hint: "Download the model again, into an empty folder.",
        });
      }
      home.set(tensor, name);
    }
  }
  return shards;
}

/** Whether each tensor is where the index says. */
function describes(index: ReadonlyMap<string, string>, shards: readonly Shard[]): boolean {
  const headers = new Map(shards.map(({ name, header }) => [name, header]));
  return [...index].every(([tensor, file]) => headers.get(file)?.tensors.has(tensor));
}
