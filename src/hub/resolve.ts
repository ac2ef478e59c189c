/** From what a user calls a model to the folder with its files. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { ExitCode, UserError } from "../errors";
import { cachedCommit, mainRevision, snapshotFolder } from "./cache-layout";
import type { ChooseWeights } from "./download";
import { hubCache, isOffline, wantsModelScope } from "./environment";
import { chosenGguf } from "./gguf-files";
import { localModel } from "./local-model";
import { splitName } from "./other-stores";
import { checkRepoId, checkRevision, isWeights } from "./repo-id";
import type { DownloadProgress } from "./snapshot";
import { type SnapshotState, snapshotState } from "./snapshot-state";

export interface ResolveOptions {
  /** Branch, tag or commit. */
  revision?: string;
  /** Never use the network, as with HF_HUB_OFFLINE=1. */
  offline?: boolean;
  onProgress?: (progress: DownloadProgress) => void;
  /** Told of what the user should know and can go on with. */
  onWarning?: (warning: string) => void;
  /** Says which weight files are wanted, once everything else is there; all where absent. */
  chooseWeights?: ChooseWeights;
  signal?: AbortSignal;
}

export interface ResolvedModel {
  /** The folder, or the GGUF file. */
  path: string;
  source: "local" | "cache" | "download";
  /** The repo's name, where it is one. */
  repo?: string;
}

/** What leads the name of a repo of which one GGUF file is meant: `hf:OWNER/NAME:Q4_K_M`. */
export const ofHub = "hf:";

/** A GGUF file of a repo: from the cache where it is there, else a download. */
async function resolveGguf(name: string, options: ResolveOptions): Promise<ResolvedModel> {
  const { revision = mainRevision, offline = isOffline(), onProgress, onWarning, signal } = options;
  const [repo, which] = splitName(name);
  checkRepoId(repo);
  checkRevision(revision);
  const cache = hubCache();
  const commit = cachedCommit(cache, { type: "model", name: repo }, revision);
  const folder = commit === null ? null : snapshotFolder(cache, { type: "model", name: repo }, commit);
  const there = folder === null ? [] : ((await readdir(folder, { recursive: true }).catch(() => [])) as string[]);
  const cached = cachedGguf(there, which, repo);
  if (folder !== null && cached !== null) return { path: join(folder, cached), source: "cache", repo };
  if (offline) {
    throw new UserError(
      `${repo} has no ${which ?? "GGUF file"} in the cache (${cache}), and the network is not to be used`,
      {
        code: ExitCode.notFound,
        hint: "Unset HF_HUB_OFFLINE to download it.",
      },
    );
  }
  const { downloadGguf } = await import("./download");
  const path = await downloadGguf(repo, which, { cache, revision, onProgress, onWait: onWarning, signal });
  return { path, source: "download", repo };
}

/** The file among those of a snapshot; null where it is not there, or not with all its parts. */
function cachedGguf(files: readonly string[], which: string | undefined, repo: string): string | null {
  let chosen: string[];
  try {
    chosen = chosenGguf(files, which, repo);
  } catch {
    return null;
  }
  const count = Number(/-of-(\d{5})\.gguf$/i.exec(chosen[0]!)?.[1] ?? 1);
  return chosen.length === count ? chosen[0]! : null;
}

/**
 * A local folder or GGUF file, else the repo's snapshot in the shared cache, else a download into it.
 * @throws UserError where there is none of them
 */
export async function resolveModel(model: string, options: ResolveOptions = {}): Promise<ResolvedModel> {
  const { revision = mainRevision, offline = isOffline(), onProgress, onWarning, signal } = options;
  const local = await localModel(model);
  if (local !== null) return { path: local, source: "local" };
  if (model.startsWith(ofHub)) return resolveGguf(model.slice(ofHub.length), options);
  checkRepoId(model);
  checkRevision(revision);
  if (wantsModelScope()) {
    // Its hub has paths, branches and lists of files of its own; and a repo of the same name may be another one.
    throw new UserError(`${model} is to come from ModelScope (MLXLM_USE_MODELSCOPE), which mlxlm cannot reach`, {
      code: ExitCode.notFound,
      hint: `Download it with ModelScope's client, modelscope download --model ${model} --local_dir FOLDER, and name the folder. Or unset MLXLM_USE_MODELSCOPE.`,
    });
  }
  const cache = hubCache();
  const commit = cachedCommit(cache, { type: "model", name: model }, revision);
  const state = commit === null ? null : snapshotState(cache, model, commit);
  if (commit !== null && state && !state.missing.includes("config.json")) {
    const { absent, folder: path } = state;
    const missing = await wantedOf(state, options.chooseWeights);
    const isWhole = missing.length === 0 && absent.length === 0;
    const fetched = isWhole ? 0 : await complete(model, commit, { ...state, missing }, { ...options, offline, cache });
    return { path, source: fetched > 0 ? "download" : "cache", repo: model };
  }
  if (offline) {
    const lacks = state ? `the copy of ${model} in the cache (${state.folder}) has no config.json` : null;
    const nothingHere = state ? "" : "There is no folder or file of that name here either. ";
    throw new UserError(`${lacks ?? `${model} is not in the cache (${cache})`}, and the network is not to be used`, {
      code: ExitCode.notFound,
      hint: `${nothingHere}Unset HF_HUB_OFFLINE to download it.`,
    });
  }
  // The hub's client takes longer to load than a small model: only those who download wait for it.
  const { downloadModel } = await import("./download");
  const { chooseWeights } = options;
  return {
    path: await downloadModel(model, { cache, revision, chooseWeights, onProgress, onWait: onWarning, signal }),
    source: "download",
    repo: model,
  };
}

/** Of the missing files those that are wanted. */
async function wantedOf({ missing, folder }: SnapshotState, chooseWeights?: ChooseWeights): Promise<string[]> {
  // What chooses reads the other files.
  if (!chooseWeights || missing.length === 0 || !missing.every(isWeights)) return missing;
  const wanted = await chooseWeights(folder);
  return missing.filter((file) => wanted?.has(file) ?? true);
}

/**
 * Fetches what a snapshot lacks.
 * @returns how many files came
 * @throws UserError where a file that is known to be missing cannot be had
 */
async function complete(
  model: string,
  commit: string,
  { folder, missing, absent }: SnapshotState,
  { cache, offline, chooseWeights, onProgress, onWarning, signal }: ResolveOptions & { cache: string },
): Promise<number> {
  const without = (reason: string) => {
    // Many models have no generation_config.json, and lose nothing by it.
    const told = absent.filter((name) => name !== "generation_config.json");
    if (told.length > 0) onWarning?.(`${model} in the cache has no ${listed(told)}, which it may need: ${reason}`);
    return 0;
  };
  if (offline) {
    if (missing.length === 0) return without("HF_HUB_OFFLINE keeps mlxlm from asking the hub");
    throw new UserError(
      `the copy of ${model} in the cache (${folder}) lacks ${listed(missing)}, and the network is not to be used`,
      { code: ExitCode.notFound, hint: "Unset HF_HUB_OFFLINE to fetch what is missing." },
    );
  }
  const { completeModel } = await import("./download");
  try {
    return await completeModel(model, commit, { cache, chooseWeights, onProgress, onWait: onWarning, signal });
  } catch (error) {
    if (!(error instanceof UserError) || error.code === ExitCode.interrupted) throw error;
    if (missing.length === 0) return without(error.message);
    const { code, hint } = error;
    throw new UserError(`the copy of ${model} in the cache lacks ${listed(missing)}: ${error.message}`, {
      code,
      hint,
      cause: error,
    });
  }
}

const shownNames = 3;

const listed = (names: readonly string[]) =>
  names.length <= shownNames
    ? names.join(", ")
    : `${names.slice(0, shownNames).join(", ")} and ${names.length - shownNames} more`;
