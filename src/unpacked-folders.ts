/** The folders that builds of mlxlm unpacked themselves into: this build's, older ones, and which of them are in use. */
import { lstatSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { bundles } from "./embedded-files";
import { usersOf } from "./mapped-by";

export interface UnpackedFolder {
  path: string;
  /** This build's bundle whose files it holds; null where it is another build's. */
  bundle: string | null;
  /** Bytes of its files. */
  size: number;
  /** When a process of that build last started and noted it, which it does once a day. */
  lastUsed: Date;
}

const bundleFolder = /^[0-9a-f]{16}$/;
/** What unpacking leaves when it is killed, or moves out of its way. */
const leftover = /^[0-9a-f]{16}\..+$/;

function sizeOf(path: string): number {
  const facts = lstatSync(path, { throwIfNoEntry: false });
  if (!facts?.isDirectory()) return facts?.size ?? 0;
  return readdirSync(path).reduce((sum, name) => sum + sizeOf(join(path, name)), 0);
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** The folders in a cache, this build's first. */
export function unpackedFolders(cache: string): UnpackedFolder[] {
  const own = new Map(Object.entries(bundles).map(([name, { id }]) => [id, name]));
  const folders = namesIn(cache)
    .filter((name) => bundleFolder.test(name))
    .sort()
    .map((name) => {
      const path = join(cache, name);
      const noted = statSync(join(path, "manifest.json"), { throwIfNoEntry: false }) ?? lstatSync(path);
      return { path, bundle: own.get(name) ?? null, size: sizeOf(path), lastUsed: noted.mtime };
    });
  return folders.sort((a, b) => Number(a.bundle === null) - Number(b.bundle === null));
}

export interface Cleaned {
  removed: UnpackedFolder[];
  kept: (UnpackedFolder & { users: number[] | null })[];
}

/**
 * Removes what other builds unpacked. While a process of one of them runs, all of theirs stay: files that it has not
 * read yet may lie in any of them.
 */
export function cleanCache(cache: string): Cleaned {
  const there = lstatSync(cache, { throwIfNoEntry: false });
  // In the temp folder, anyone may put something in its place.
  if (!there?.isDirectory() || there.uid !== process.getuid?.()) return { removed: [], kept: [] };
  const older = unpackedFolders(cache).filter(({ bundle }) => bundle === null);
  const used = older.map((folder) => ({ ...folder, users: usersOf(folder.path) }));
  if (used.some(({ users }) => users === null || users.length > 0)) return { removed: [], kept: used };
  for (const { path } of older) {
    // A process that starts now finds nothing, and unpacks anew, instead of half a folder.
    const aside = `${path}.aside-${process.pid}`;
    renameSync(path, aside);
    rmSync(aside, { recursive: true, force: true });
  }
  const hourAgo = Date.now() - 3_600_000;
  for (const name of namesIn(cache).filter((one) => leftover.test(one))) {
    const path = join(cache, name);
    if ((lstatSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Number.POSITIVE_INFINITY) < hourAgo) {
      rmSync(path, { recursive: true, force: true });
    }
  }
  return { removed: older, kept: [] };
}
