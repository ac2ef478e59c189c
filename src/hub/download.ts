/** Downloads a model's files into the shared cache. */
import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import { modelInfo } from "@huggingface/hub";
import { ExitCode, UserError } from "../errors";
import { type HubRepo, isCommit, snapshotFolder } from "./cache-layout";
import { hubCache, isOffline } from "./environment";
import { hubParameters, hubUrl } from "./http";
import { hubError } from "./hub-error";
import { isWanted } from "./repo-id";
import { checkCommit, fetchSnapshot, filesOf, type SnapshotOptions, writeRef } from "./snapshot";

export interface DownloadOptions extends SnapshotOptions {
  revision: string;
}

/**
 * Fetches what a model needs and returns the folder of its snapshot. Files that are in the cache stay.
 * @throws UserError for what the hub refuses, a network or disk that fails, and files that are not what was promised
 */
export async function downloadModel(name: string, options: DownloadOptions): Promise<string> {
  const { cache, revision, signal } = options;
  const repo: HubRepo = { type: "model", name };
  try {
    const { sha: commit } = await modelInfo({ ...hubParameters(signal), name, revision, additionalFields: ["sha"] });
    checkCommit(commit, name);
    const entries = await filesOf(repo, commit, isWanted, { signal });
    if (!entries.some(({ path }) => path === "config.json")) {
      throw new UserError(`${name} is no model: it has no config.json`, {
        code: ExitCode.notFound,
        hint: "Check the name.",
      });
    }
    const snapshot = await fetchSnapshot(repo, commit, entries, options);
    await writeRef(cache, repo, revision, commit);
    return snapshot;
  } catch (error) {
    throw hubError(error, { name, revision, page: `${hubUrl()}/${name}`, signal });
  }
}

/**
 * Adds the card, README.md, to a snapshot of the cache: what is made of a model keeps its license and its tags. Running
 * it needs none, so without one, or without the network, there is just none.
 */
export async function fetchCard(name: string, snapshot: string, signal?: AbortSignal): Promise<void> {
  const repo: HubRepo = { type: "model", name };
  const commit = basename(snapshot);
  const cache = hubCache();
  const isOfCache = isCommit(commit) && snapshot === snapshotFolder(cache, repo, commit);
  if (!isOfCache || isOffline() || existsSync(join(snapshot, "README.md"))) return;
  try {
    const entries = await filesOf(repo, commit, (file) => file === "README.md", { signal });
    await fetchSnapshot(repo, commit, entries, { cache, signal });
  } catch (error) {
    if (signal?.aborted) throw hubError(error, { name, signal });
  }
}
