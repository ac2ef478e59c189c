/**
 * The Hugging Face cache: `models--org--name/` with `blobs/<etag>`, `refs/<revision>` holding a commit, and
 * `snapshots/<commit>/` of links into the blobs.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

export const mainRevision = "main";

/** Whether a text is a commit's hash: only that may become the name of a snapshot's folder. */
export function isCommit(text: string): boolean {
  return /^[0-9a-f]{40}$/.test(text);
}

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
  if (isCommit(revision)) return revision;
  try {
    const commit = readFileSync(join(repoFolder(cache, repo), "refs", revision), "utf8").trim();
    return isCommit(commit) ? commit : null;
  } catch {
    return null;
  }
}

/** Whether a snapshot has its configuration and every weight file. A link whose blob is gone does not count. */
function isWhole(folder: string): boolean {
  if (!existsSync(join(folder, "config.json"))) return false;
  const index = join(folder, "model.safetensors.index.json");
  if (!existsSync(index)) {
    const files = readdirSync(folder).filter(
      (name) => /^model.*\.safetensors$/.test(name) && existsSync(join(folder, name)),
    );
    // `model-00001-of-00003.safetensors`: without an index, the names say how many there must be.
    const parts = files.map((name) => Number(/-of-(\d+)\.safetensors$/.exec(name)?.[1] ?? 1));
    return files.length > 0 && files.length >= Math.max(...parts);
  }
  try {
    const { weight_map: map } = JSON.parse(readFileSync(index, "utf8")) as { weight_map: Record<string, string> };
    return Object.values(map).every((name) => existsSync(join(folder, name)));
  } catch {
    return false;
  }
}
