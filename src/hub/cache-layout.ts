/**
 * The Hugging Face cache: `models--org--name/` with `blobs/<etag>`, `refs/<revision>` holding a commit, and
 * `snapshots/<commit>/` of links into the blobs; `datasets--org--name/` likewise.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

export const mainRevision = "main";

/** A repo of the hub. */
export interface HubRepo {
  type: "model" | "dataset";
  /** owner/name, or a name alone. */
  name: string;
}

/** Whether a text is a commit's hash: only that may become the name of a snapshot's folder. */
export function isCommit(text: string): boolean {
  return /^[0-9a-f]{40}$/.test(text);
}

/** The folder of a repo in a cache. */
export function repoFolder(cache: string, { type, name }: HubRepo): string {
  return join(cache, `${type}s--${name.replaceAll("/", "--")}`);
}

export function snapshotFolder(cache: string, repo: HubRepo, commit: string): string {
  return join(repoFolder(cache, repo), "snapshots", commit);
}

/** The file with the commit that a branch or tag stood for. */
export function refFile(cache: string, repo: HubRepo, revision: string): string {
  return join(repoFolder(cache, repo), "refs", revision);
}

/** The commit that a revision stands for, as far as the cache knows. */
export function cachedCommit(cache: string, repo: HubRepo, revision: string): string | null {
  if (isCommit(revision)) return revision;
  try {
    const commit = readFileSync(refFile(cache, repo, revision), "utf8").trim();
    return isCommit(commit) ? commit : null;
  } catch {
    return null;
  }
}

/** The snapshot that a revision of a model stands for, where all of its files are there. */
export function cachedSnapshot(cache: string, name: string, revision = mainRevision): string | null {
  const repo: HubRepo = { type: "model", name };
  const commit = cachedCommit(cache, repo, revision);
  if (!commit) return null;
  const folder = snapshotFolder(cache, repo, commit);
  return isWhole(folder) ? folder : null;
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
