/** Archives that are the same bytes whenever the same files are packed. */
import { chmodSync, mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { create } from "tar";

/**
 * Packs `names` of a folder, below `prefix`.
 * @param time the date of every file
 */
export async function pack(
  archive: string,
  { folder, names, prefix, time }: { folder: string; names: readonly string[]; prefix: string; time: Date },
): Promise<void> {
  mkdirSync(dirname(archive), { recursive: true });
  const options = { file: archive, cwd: folder, prefix, mtime: time, portable: true, gzip: { level: 9 } };
  await create(options, [...names].sort());
}

export const makeExecutable = (path: string) => chmodSync(path, 0o755);
