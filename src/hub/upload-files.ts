/** Which files of a folder go to the hub. */
import { realpath, stat } from "node:fs/promises";
import { dirname, join, sep } from "node:path";
import { ExitCode, UserError } from "../errors";
import { filesBelow } from "./files-below";

export interface LocalFile {
  /** Its name in the repo: relative, with slashes. */
  path: string;
  /** Where it lies. */
  source: string;
  /** Bytes. */
  size: number;
}

/**
 * All files of a model's folder but hidden ones, in the order of their names. Links are followed to files of the folder
 * itself and, in a snapshot of the cache, of its repo: others could name anything on this machine.
 * @throws UserError where it is no model's folder, or a link leads out of it
 */
export async function localFiles(folder: string): Promise<LocalFile[]> {
  const facts = await stat(folder).catch(() => null);
  if (!facts?.isDirectory()) {
    throw new UserError(facts ? `${folder} is a file, not a model's folder` : `there is no folder ${folder}`, {
      code: ExitCode.notFound,
      hint: "Name the folder that holds config.json and the weights: --path",
    });
  }
  const root = await realpath(folder);
  const places = [root, ...blobsOf(root)];
  const files: LocalFile[] = [];
  for (const path of await filesBelow(root, (name) => !name.startsWith("."))) {
    const source = await realpath(join(root, path)).catch(() => null);
    const target = source === null ? null : await stat(source);
    if (target?.isDirectory()) continue;
    if (!source || !target?.isFile() || !places.some((place) => source.startsWith(place + sep))) {
      throw new UserError(`${path} in ${folder} is a link to ${source ?? "nothing"}, not a file of the model`, {
        hint: "Replace it by a copy of the file, or delete it.",
      });
    }
    files.push({ path, source, size: target.size });
  }
  if (!files.some(({ path }) => path === "config.json")) {
    throw new UserError(`${folder} is no model: it has no config.json`, {
      code: ExitCode.notFound,
      hint: "Name the folder that holds config.json and the weights: --path",
    });
  }
  return files;
}

/** Where a snapshot of the cache keeps the content of its files. */
function blobsOf(root: string): string[] {
  const snapshots = dirname(root);
  return snapshots.endsWith(`${sep}snapshots`) ? [join(dirname(snapshots), "blobs")] : [];
}
