/**
 * Datasets of the Hugging Face hub, in the form that it keeps of all of them: Parquet, on a branch of its own, as
 * `<configuration>/<split>/0000.parquet`.
 */
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ExitCode, UserError } from "../errors";
import { cachedCommit, type HubRepo, snapshotFolder } from "../hub/cache-layout";
import { hubCache, isOffline } from "../hub/environment";
import type { HubOptions } from "../hub/http";
import { checkRepoId } from "../hub/repo-id";
import { nearest } from "../nearest";
import { openRows } from "./row-files";
import type { Rows } from "./rows";
import type { DatasetOptions, Splits } from "./splits";

const parquetBranch = "refs/convert/parquet";

/** Only what has this form is written to the cache. */
const parquetFile = /^([\w.+-]+)\/((?:partial-)?[\w.+-]+)\/([\w.+-]+\.parquet)$/;

/** @throws UserError where there is no such dataset or configuration, or it cannot be had */
export async function openHubDataset(name: string, options: DatasetOptions): Promise<Splits> {
  checkName(name);
  const repo: HubRepo = { type: "dataset", name };
  const cache = hubCache();
  const commit = cachedCommit(cache, repo, parquetBranch);
  const cached = commit && (await cachedSplits(snapshotFolder(cache, repo, commit), options.name));
  if (cached) return cached;
  if (isOffline()) {
    throw new UserError(
      `the dataset ${named(name, options.name)} is not in the cache, and the network is not to be used`,
      {
        code: ExitCode.notFound,
        hint: "Unset HF_HUB_OFFLINE to download it.",
      },
    );
  }
  const { hubError } = await import("../hub/hub-error");
  const { hubUrl } = await import("../hub/http");
  try {
    const snapshot = await download(repo, options);
    return (await cachedSplits(snapshot, options.name))!;
  } catch (error) {
    const page = `${hubUrl()}/datasets/${name}`;
    throw hubError(error, { name: `the dataset ${name}`, mayBePath: true, page, signal: options.signal });
  }
}

const named = (repo: string, name: string | undefined) => (name === undefined ? repo : `${repo}, ${name}`);

/** Files of data by their endings: no repo is called so. */
const dataFile = /\.(jsonl|json|csv|txt|parquet)$/i;

function checkName(repo: string): void {
  if (dataFile.test(repo)) {
    throw new UserError(`there is no file ${repo}`, { code: ExitCode.notFound, hint: "Check the path." });
  }
  try {
    checkRepoId(repo);
  } catch {
    throw new UserError(`there is no dataset ${repo}: neither a file or folder, nor a repo's name`, {
      code: ExitCode.notFound,
      hint: "Check the path.",
    });
  }
}

/** Written last into a configuration's folder: only then all of its files are there. It names all configurations. */
const wholeMark = ".whole";

async function cachedSplits(snapshot: string, name: string | undefined): Promise<Splits | null> {
  const folders = (await readdir(snapshot).catch(() => [])).sort();
  for (const folder of name === undefined ? folders : folders.filter((one) => one === name)) {
    const mark = await readFile(join(snapshot, folder, wholeMark), "utf8").catch(() => null);
    // Where none is named, it takes all of them to know which one is meant.
    if (mark === null || (name === undefined && unnamed(mark.split("\n")) !== folder)) continue;
    return splitsIn(join(snapshot, folder));
  }
  return null;
}

async function splitsIn(folder: string): Promise<Splits> {
  const splits = new Map<string, Rows>();
  for (const split of (await readdir(folder)).filter((one) => one !== wholeMark)) {
    const files = (await readdir(join(folder, split))).filter((file) => file.endsWith(".parquet")).sort();
    splits.set(split.replace(/^partial-/, ""), await openRows(files.map((file) => join(folder, split, file))));
  }
  return splits;
}

/** Fetches one configuration and returns the snapshot's folder. */
async function download(
  repo: HubRepo,
  { name, signal, onNotice: onWait, onProgress }: DatasetOptions,
): Promise<string> {
  const { checkCommit, fetchSnapshot, filesOf, writeRef } = await import("../hub/snapshot");
  const cache = hubCache();
  const commit = await parquetCommit(repo.name, { onWait, signal });
  checkCommit(commit, `the dataset ${repo.name}`);
  const files = await filesOf(repo, commit, (path) => parquetFile.test(path), { recursive: true, onWait, signal });
  const configs = [...new Set(files.map(({ path }) => path.split("/")[0]!))];
  const config = chooseConfig(repo.name, configs, name);
  const wanted = files.filter(({ path }) => path.startsWith(`${config}/`));
  const snapshot = await fetchSnapshot(repo, commit, wanted, {
    cache,
    signal,
    onWait,
    onProgress: ({ done, total }) => onProgress?.(done, total),
  });
  await writeFile(join(snapshot, config, wholeMark), configs.join("\n"));
  await writeRef(cache, repo, parquetBranch, commit);
  return snapshot;
}

/** What the hub calls the newest commit of the Parquet branch. */
async function parquetCommit(name: string, options: HubOptions): Promise<string> {
  const { datasetInfo } = await import("@huggingface/hub");
  const { hubParameters, RefusedError } = await import("../hub/http");
  const wanted = { name, revision: parquetBranch, additionalFields: ["sha" as const] };
  try {
    return (await datasetInfo({ ...hubParameters(options), ...wanted })).sha;
  } catch (error) {
    if (error instanceof RefusedError && error.reason === "RevisionNotFound") throw noParquet(name);
    throw error;
  }
}

function noParquet(repo: string): UserError {
  return new UserError(`the hub has no Parquet files of the dataset ${repo}`, {
    code: ExitCode.notFound,
    hint: "Download its files and name them: dataset_path: json, dataset_kwargs: data_files.",
  });
}

/** The configuration that is meant where none is named. */
const unnamed = (configs: readonly string[]) =>
  configs.length === 1 ? configs[0] : configs.find((config) => config === "default");

function chooseConfig(repo: string, configs: readonly string[], name: string | undefined): string {
  if (configs.length === 0) throw noParquet(repo);
  const chosen = name ?? unnamed(configs);
  if (chosen !== undefined && configs.includes(chosen)) return chosen;
  const some = configs.slice(0, 10).join(", ");
  const [similar] = name === undefined ? [] : nearest(name, configs, 1);
  throw new UserError(
    name === undefined
      ? `the dataset ${repo} has several configurations: ${some}`
      : `the dataset ${repo} has no configuration "${name}"; it has ${some}`,
    { code: ExitCode.notFound, hint: similar ? `Did you mean ${similar}?` : "Name one of them: dataset_name." },
  );
}
