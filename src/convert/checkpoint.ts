/** The weight files of a checkpoint folder, checked before anything is loaded. */
import { readdir, realpath, stat } from "node:fs/promises";
import { basename, dirname, join, sep } from "node:path";
import { ExitCode, UserError } from "../errors";
import { readJson } from "../json-file";
import { readSafetensorsHeader, type SafetensorsHeader } from "../mlx/safetensors-header";

export interface Shard {
  path: string;
  header: SafetensorsHeader;
}

const indexName = "model.safetensors.index.json";

/**
 * The shards of a folder with their checked headers: those that the index names, else all `model*.safetensors`.
 * @throws UserError for a folder without weights, a shard that is missing, outside the folder or unsound, or tensors that
 * are in two shards or in none
 */
export async function openCheckpoint(folder: string): Promise<Shard[]> {
  const names = await readdir(folder).catch(() => [] as string[]);
  const index = names.includes(indexName) ? await readIndex(folder) : null;
  const files = index
    ? [...new Set(index.values())].sort()
    : names.filter((name) => /^model.*\.safetensors$/.test(name)).sort();
  if (files.length === 0) {
    const other = names.find((name) => /\.(bin|pt|pth|gguf|npz)$/.test(name));
    throw new UserError(`${folder} has no weights (model*.safetensors)${other ? `, only ${other}` : ""}`, {
      code: ExitCode.notFound,
      hint: "mlxlm reads safetensors. Check the path, or download the model again.",
    });
  }
  const shards = await Promise.all(
    files.map(async (name) => {
      const path = await shardPath(folder, name);
      return { path, header: await readSafetensorsHeader(path) };
    }),
  );
  checkNames(folder, files, shards, index);
  return shards;
}

async function readIndex(folder: string): Promise<Map<string, string>> {
  const { weight_map: map } = await readJson(folder, indexName);
  const entries = typeof map === "object" && map !== null ? Object.entries(map) : [];
  if (entries.length === 0 || entries.some(([, file]) => typeof file !== "string")) {
    throw new UserError(`${indexName} of ${folder}: "weight_map" must name a file for each tensor`, {
      hint: "Download the model again.",
    });
  }
  return new Map(entries as [string, string][]);
}

/** Path of a shard. */
async function shardPath(folder: string, name: string): Promise<string> {
  if (name === "" || name === "." || name === ".." || /[\\/\0]/.test(name)) throw outside(folder, name);
  const path = join(folder, name);
  if (!(await stat(path).catch(() => null))?.isFile()) {
    throw new UserError(`${folder} lacks the weight file ${name}`, {
      code: ExitCode.notFound,
      hint: "The download may have been cut off: download the model again.",
    });
  }
  await checkInside(folder, name);
  return path;
}

const outside = (folder: string, name: string) =>
  new UserError(`the file ${JSON.stringify(name)} of ${folder} leads outside the folder`, {
    hint: "Do not use this model: its files try to reach others.",
  });

/**
 * A link may lead to the blobs of the same cached repo, not elsewhere.
 * @throws UserError where a file of the folder is such a link
 */
export async function checkInside(folder: string, name: string): Promise<void> {
  const [real, home] = await Promise.all([realpath(join(folder, name)), realpath(folder)]);
  const blobs = blobsOf(home);
  if (!real.startsWith(home + sep) && !(blobs && real.startsWith(blobs + sep))) throw outside(folder, name);
}

/** `<repo>/snapshots/<commit>` → `<repo>/blobs`; null for a folder that is no snapshot. */
function blobsOf(folder: string): string | null {
  const snapshots = dirname(folder);
  return basename(snapshots) === "snapshots" ? join(dirname(snapshots), "blobs") : null;
}

function checkNames(
  folder: string,
  files: readonly string[],
  shards: readonly Shard[],
  index: Map<string, string> | null,
): void {
  const home = new Map<string, string>();
  shards.forEach(({ header }, i) => {
    for (const name of header.tensors.keys()) {
      const before = home.get(name);
      if (before)
        throw new UserError(`tensor "${name}" of ${folder} is in two files: ${before} and ${files[i]}`, {
          hint: "Download the model again.",
        });
      home.set(name, files[i]!);
    }
  });
  for (const [name, file] of index ?? []) {
    if (home.get(name) !== file) {
      throw new UserError(
        `${indexName} of ${folder} says that "${name}" is in ${file}, but it is ${home.has(name) ? `in ${home.get(name)}` : "in no file"}`,
        {
          hint: "Download the model again.",
        },
      );
    }
  }
}
