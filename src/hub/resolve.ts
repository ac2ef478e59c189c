/** From what a user calls a model to the folder with its files. */
import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { ExitCode, UserError } from "../errors";
import { cachedSnapshot, mainRevision } from "./cache-layout";
import { hubCache, isOffline, wantsModelScope } from "./environment";
import { checkRepoId, checkRevision } from "./repo-id";
import type { DownloadProgress } from "./snapshot";

export interface ResolveOptions {
  /** Branch, tag or commit. */
  revision?: string;
  /** Never use the network, as with HF_HUB_OFFLINE=1. */
  offline?: boolean;
  onProgress?: (progress: DownloadProgress) => void;
  signal?: AbortSignal;
}

export interface ResolvedModel {
  /** The folder, or the GGUF file. */
  path: string;
  source: "local" | "cache" | "download";
  /** The repo's name, where it is one. */
  repo?: string;
}

/**
 * A local folder or GGUF file, else the repo's snapshot in the shared cache, else a download into it.
 * @throws UserError where there is none of them
 */
export async function resolveModel(model: string, options: ResolveOptions = {}): Promise<ResolvedModel> {
  const { revision = mainRevision, offline = isOffline(), onProgress, signal } = options;
  const facts = await stat(model).catch(() => null);
  if (facts?.isDirectory() || (facts && /\.gguf$/i.test(model))) return { path: resolve(model), source: "local" };
  if (facts) {
    throw new UserError(`${model} is a file, but a model is a folder or a GGUF file`, {
      code: ExitCode.usage,
      hint: "Name the folder that holds config.json and the weights.",
    });
  }
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
  const cached = cachedSnapshot(cache, model, revision);
  if (cached) return { path: cached, source: "cache", repo: model };
  if (offline) {
    throw new UserError(`${model} is not in the cache (${cache}), and the network is not to be used`, {
      code: ExitCode.notFound,
      hint: "Unset HF_HUB_OFFLINE to download it.",
    });
  }
  // The hub's client takes longer to load than a small model: only those who download wait for it.
  const { downloadModel } = await import("./download");
  return { path: await downloadModel(model, { cache, revision, onProgress, signal }), source: "download", repo: model };
}
