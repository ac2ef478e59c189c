/**
 * The Hugging Face cache: `models--org--name/` with `blobs/<etag>`, `refs/<revision>` holding a commit, and
 * `snapshots/<commit>/` of links into the blobs.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

export const mainRevision = "main";

/** The folder of a model's repo in a cache. */
export function repoFolder(cache: string, repo: string): string {
  return join(cache, `models--${repo.replaceAll("/", "--")}`);
}

export function snapshotFolder(cache: string, repo: string, commit: string): string {
  return join(repoFolder(cache, repo), "snapshots", commit);
}

/** The snapshot that a revision stands for, where all of its files are there. */
export function cachedSnapshot(cache: string, repo: string, revision = mainRevision): string | null {
  const commit = readCommit(cache, repo, revision);
  if (!commit) return null;
  const folder = snapshotFolder(cache, repo, commit);
  return isWhole(folder) ? folder : null;
}

function readCommit(cache: string, repo: string, revision: string): string | null {
  if (/^[0-9a-f]{40}$/.test(revision)) return revision;
  try {
    const commit = readFileSync(join(repoFolder(cache, repo), "refs", revision), "utf8").trim();
    return /^[0-9a-zA-Z._-]+$/.test(commit) ? commit : null;
  } catch {
    return null;
  }
}

/** Whether a snapshot has its configuration and every weight file. A link whose blob is gone does not count. */
function isWhole(folder: string): boolean {
  if (!existsSync(join(folder, "config.json"))) return false;
  const index = join(folder, "model.safetensors.index.json");
  if (!existsSync(index)) {
    return readdirSync(folder).some((name) => /^model.*\.safetensors$/.test(name) && existsSync(join(folder, name)));
  }
  try {
    const { weight_map: map } = JSON.parse(readFileSync(index, "utf8")) as { weight_map: Record<string, string> };
    return Object.values(map).every((name) => existsSync(join(folder, name)));
  } catch {
    return false;
  }
}
