/**
 * The files of a commit, as the cache remembers them: `trees/<commit>.json`, which Python's huggingface_hub 2 writes and
 * reads too. A commit never changes, so its list is good for ever.
 */
import { randomUUID } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { ListFileEntry } from "@huggingface/hub";
import { type HubRepo, repoFolder } from "./cache-layout";

const version = 1;

/** Bytes. A list of 100,000 files takes 30 MB. */
const largest = 64 * 2 ** 20;

export const listFile = (cache: string, repo: HubRepo, commit: string) =>
  join(repoFolder(cache, repo), "trees", `${commit}.json`);

/** All files of a commit, in its folders too; null where the cache has no list, or one that cannot be read. */
export function rememberedFiles(cache: string, repo: HubRepo, commit: string): ListFileEntry[] | null {
  try {
    const path = listFile(cache, repo, commit);
    const facts = statSync(path);
    if (!facts.isFile() || facts.size > largest) return null;
    const { format_version, files } = JSON.parse(readFileSync(path, "utf8"));
    if (format_version !== version) return null;
    return Object.entries(files as Record<string, Record<string, unknown>>).map(([name, facts]) => entry(name, facts));
  } catch {
    return null;
  }
}

function entry(path: string, { size, blob_id: oid, lfs_sha256: sha256 }: Record<string, unknown>): ListFileEntry {
  if (!Number.isSafeInteger(size) || typeof oid !== "string") throw new TypeError(`${path} has no size or no hash`);
  const file = { type: "file" as const, path, size: size as number, oid };
  if (typeof sha256 !== "string") return file as ListFileEntry;
  return { ...file, lfs: { oid: sha256, size: size as number, pointerSize: 0 } } as ListFileEntry;
}

/** Writes the list of all files. A cache that cannot be written goes without one. */
export async function rememberFiles(
  cache: string,
  repo: HubRepo,
  commit: string,
  entries: readonly ListFileEntry[],
): Promise<void> {
  const path = listFile(cache, repo, commit);
  const temporary = `${path}.${randomUUID().slice(0, 8)}.tmp`;
  const files = entries
    .toSorted((a, b) => (a.path < b.path ? -1 : 1))
    .map(({ path: name, size, oid, lfs, xetHash }) => [
      name,
      {
        size,
        blob_id: oid,
        ...(lfs ? { lfs_sha256: lfs.oid, lfs_size: lfs.size } : {}),
        ...(/^[0-9a-f]{64}$/.test(xetHash ?? "") ? { xet_hash: xetHash } : {}),
      },
    ]);
  try {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(temporary, JSON.stringify({ format_version: version, files: Object.fromEntries(files) }, null, 1));
    await rename(temporary, path);
  } catch {
    await rm(temporary, { force: true }).catch(() => {});
  }
}
