/** Downloads a model's files into the shared cache. */
import { existsSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { type ListFileEntry, modelInfo } from "@huggingface/hub";
import { ExitCode, UserError } from "../errors";
import { type HubRepo, isCommit, snapshotFolder } from "./cache-layout";
import { hubCache, isOffline } from "./environment";
import { rememberedFiles, rememberFiles } from "./file-list";
import { chosenGguf } from "./gguf-files";
import { type HubOptions, hubParameters, hubUrl } from "./http";
import { hubError } from "./hub-error";
import { checkFileName, isWanted, isWeights } from "./repo-id";
import { checkCommit, fetchSnapshot, filesOf, type SnapshotOptions, writeRef } from "./snapshot";

/** Says which weight files of a model are wanted; null for all. It is asked when everything else is in the folder. */
export type ChooseWeights = (folder: string) => Promise<ReadonlySet<string> | null>;

interface Choice {
  /** All weight files are wanted where absent. */
  chooseWeights?: ChooseWeights;
}

export interface DownloadOptions extends SnapshotOptions, Choice {
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
    const commit = await modelCommit(name, revision, options);
    const entries = await modelFiles(repo, commit, options);
    const snapshot = await fetchChosen(repo, commit, entries, options);
    await writeRef(cache, repo, revision, commit);
    return snapshot;
  } catch (error) {
    throw hubError(error, { name, revision, mayBePath: true, page: `${hubUrl()}/${name}`, signal });
  }
}

/** Of weights only what is wanted. */
async function fetchChosen(
  repo: HubRepo,
  commit: string,
  entries: readonly ListFileEntry[],
  { chooseWeights, ...options }: SnapshotOptions & Choice,
): Promise<string> {
  if (!chooseWeights) return await fetchSnapshot(repo, commit, entries, options);
  const others = entries.filter(({ path }) => !isWeights(path));
  const wanted = await chooseWeights(await fetchSnapshot(repo, commit, others, options));
  const chosen = entries.filter(({ path }) => isWeights(path) && (wanted?.has(path) ?? true));
  return await fetchSnapshot(repo, commit, chosen, options);
}

/**
 * Fetches a GGUF file of a repo, with its other parts where it has some, and returns the path of the first.
 * @param which as `chosenGguf`
 * @throws UserError as `downloadModel`
 */
export async function downloadGguf(name: string, which: string | undefined, options: DownloadOptions): Promise<string> {
  const { cache, revision, signal } = options;
  const repo: HubRepo = { type: "model", name };
  try {
    const commit = await modelCommit(name, revision, options);
    const entries = await allFiles(repo, commit, options);
    const chosen = new Set(
      chosenGguf(
        entries.map(({ path }) => path),
        which,
        name,
      ),
    );
    const own = entries.filter(({ path }) => chosen.has(path));
    const snapshot = await fetchSnapshot(repo, commit, own, options);
    await writeRef(cache, repo, revision, commit);
    return join(snapshot, [...chosen][0]!);
  } catch (error) {
    throw hubError(error, { name, revision, page: `${hubUrl()}/${name}`, signal });
  }
}

/**
 * Fetches what a snapshot of the cache lacks of its own commit: a newer one on the hub changes nothing.
 * @returns how many files were fetched
 * @throws UserError as `downloadModel`
 */
export async function completeModel(name: string, commit: string, options: SnapshotOptions & Choice): Promise<number> {
  const { cache, signal } = options;
  const repo: HubRepo = { type: "model", name };
  const folder = snapshotFolder(cache, repo, commit);
  try {
    const entries = await modelFiles(repo, commit, options);
    // A cache on a system without links holds files in their place.
    const lacking = entries.filter(
      ({ path, size }) => statSync(join(folder, path), { throwIfNoEntry: false })?.size !== size,
    );
    if (lacking.length > 0) await fetchChosen(repo, commit, lacking, options);
    return lacking.length;
  } catch (error) {
    throw hubError(error, { name, revision: commit, page: `${hubUrl()}/${name}`, signal });
  }
}

/** The commit that a branch or tag stands for now. */
export async function modelCommit(name: string, revision: string, options: HubOptions): Promise<string> {
  const { sha: commit } = await modelInfo({ ...hubParameters(options), name, revision, additionalFields: ["sha"] });
  checkCommit(commit, name);
  return commit;
}

/** The files that a model needs, from the cache's list or the hub's. @throws UserError where it is no model */
export async function modelFiles(repo: HubRepo, commit: string, options: SnapshotOptions): Promise<ListFileEntry[]> {
  const entries = await allFiles(repo, commit, options);
  if (!entries.some(({ path }) => path === "config.json")) {
    throw new UserError(`${repo.name} is no model: it has no config.json`, {
      code: ExitCode.notFound,
      hint: "Check the name.",
    });
  }
  return entries.filter(({ path }) => isWanted(path));
}

/** All files of a commit; the cache remembers them. */
async function allFiles(
  repo: HubRepo,
  commit: string,
  { cache, onWait, signal }: SnapshotOptions,
): Promise<readonly ListFileEntry[]> {
  const known = rememberedFiles(cache, repo, commit);
  for (const { path } of known ?? []) checkFileName(path, repo.name);
  if (known) return known;
  const entries = await filesOf(repo, commit, () => true, { recursive: true, onWait, signal });
  await rememberFiles(cache, repo, commit, entries);
  return entries;
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
