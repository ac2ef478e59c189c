/**
 * The Hugging Face cache: `models--org--name/` with `blobs/<etag>`, `refs/<revision>` holding a commit, and
 * `snapshots/<commit>/` of links into the blobs; `datasets--org--name/` likewise.
 */
import { join } from "node:path";
import { inputTextSync } from "../input-file";

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
    const commit = inputTextSync(refFile(cache, repo, revision))?.trim() ?? "";
    return isCommit(commit) ? commit : null;
  } catch {
    return null;
  }
}
