/** Downloads a model's files into the shared cache. */
import { createHash, randomUUID } from "node:crypto";
import { createWriteStream, existsSync } from "node:fs";
import { mkdir, rename, rm, statfs, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { downloadFile, type ListFileEntry, listFiles, modelInfo } from "@huggingface/hub";
import { ExitCode, UserError } from "../errors";
import { isCommit, repoFolder, snapshotFolder } from "./cache-layout";
import { hubError, hubParameters } from "./http";
import { checkFileName, isWanted } from "./repo-id";

export interface DownloadProgress {
  /** The file that just got more bytes. */
  file: string;
  /** Bytes of all files so far, and in the end. */
  done: number;
  total: number;
  /** How many files there are. */
  files: number;
}

export interface DownloadOptions {
  cache: string;
  revision: string;
  onProgress?: (progress: DownloadProgress) => void;
  signal?: AbortSignal;
}

/** How many files are fetched at a time. */
const parallel = 4;

/**
 * Fetches what a model needs and returns the folder of its snapshot. Files that are in the cache stay. Each file is
 * written under a name of its own, checked, and renamed: two processes may do this at once.
 * @throws UserError for what the hub refuses, a network or disk that fails, and files that are not what was promised
 */
export async function downloadModel(repo: string, options: DownloadOptions): Promise<string> {
  try {
    return await download(repo, options);
  } catch (error) {
    throw hubError(error, repo);
  }
}

async function download(repo: string, { cache, revision, onProgress, signal }: DownloadOptions): Promise<string> {
  const { sha: commit } = await modelInfo({
    ...hubParameters(signal),
    name: repo,
    revision,
    additionalFields: ["sha"],
  });
  if (!isCommit(commit)) {
    throw new UserError(`the hub names ${JSON.stringify(commit)} as the commit of ${repo}, which is none`, {
      hint: "Try again later.",
    });
  }
  const entries: ListFileEntry[] = [];
  for await (const entry of listFiles({ ...hubParameters(signal), repo, revision: commit })) {
    if (entry.type !== "file") continue;
    checkFileName(entry.path, repo);
    if (isWanted(entry.path)) entries.push(entry);
  }
  if (!entries.some(({ path }) => path === "config.json")) {
    throw new UserError(`${repo} is no model: it has no config.json`, {
      code: ExitCode.notFound,
      hint: "Check the name.",
    });
  }

  const missing = entries.filter((entry) => !existsSync(blobPath(cache, repo, entry)));
  const total = missing.reduce((sum, { size }) => sum + size, 0);
  await checkSpace(cache, total, repo);

  let done = 0;
  const report = (file: string, bytes: number) => {
    done += bytes;
    onProgress?.({ file, done, total, files: missing.length });
  };
  await fetchAll(missing, (entry, stop) => fetchBlob(repo, commit, entry, cache, report, stop), signal);

  const snapshot = snapshotFolder(cache, repo, commit);
  for (const entry of entries) await link(blobPath(cache, repo, entry), join(snapshot, entry.path));
  await writeRef(cache, repo, revision, commit);
  return snapshot;
}

/** The name of a file's content: the SHA-256 of a large file, git's hash of a small one. */
const etagOf = ({ lfs, oid, path }: ListFileEntry) => {
  const etag = lfs?.oid ?? oid ?? "";
  if (!/^[0-9a-f]{40,64}$/.test(etag))
    throw new UserError(`the hub gives no hash for ${path}`, { hint: "Try again later." });
  return etag;
};

const blobPath = (cache: string, repo: string, entry: ListFileEntry) =>
  join(repoFolder(cache, repo), "blobs", etagOf(entry));

async function checkSpace(cache: string, needed: number, repo: string): Promise<void> {
  await mkdir(cache, { recursive: true });
  const { bavail, bsize } = await statfs(cache);
  const free = bavail * bsize;
  if (free < needed) {
    const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(1)} GB`;
    throw new UserError(`${repo} needs ${gigabytes(needed)}, but ${cache} has only ${gigabytes(free)} free`, {
      code: ExitCode.resources,
      hint: "Make room, or name another cache: HF_HUB_CACHE=/path",
    });
  }
}

/** Fetches a few files at a time. When one fails, or the user asks, the others are stopped and cleared away first. */
async function fetchAll(
  entries: readonly ListFileEntry[],
  fetchOne: (entry: ListFileEntry, stop: AbortSignal) => Promise<void>,
  signal?: AbortSignal,
): Promise<void> {
  const failed = new AbortController();
  const stop = signal ? AbortSignal.any([signal, failed.signal]) : failed.signal;
  const queue = [...entries];
  let cause: unknown;
  const worker = async () => {
    for (let entry = queue.shift(); entry && !stop.aborted; entry = queue.shift()) {
      await fetchOne(entry, stop).catch((error) => {
        cause ??= error;
        failed.abort();
      });
    }
  };
  await Promise.all(Array.from({ length: parallel }, worker));
  if (signal?.aborted) {
    throw new UserError("the download was interrupted", {
      code: ExitCode.interrupted,
      hint: "Files that were complete are kept: the same command continues with the others.",
    });
  }
  if (cause) throw cause;
}

async function fetchBlob(
  repo: string,
  commit: string,
  entry: ListFileEntry,
  cache: string,
  report: (file: string, bytes: number) => void,
  stop: AbortSignal,
): Promise<void> {
  const target = blobPath(cache, repo, entry);
  const temporary = `${target}.${randomUUID()}.incomplete`;
  await mkdir(dirname(target), { recursive: true });
  const xet = process.env.HF_HUB_DISABLE_XET === undefined;
  const blob = await downloadFile({ ...hubParameters(stop), repo, path: entry.path, revision: commit, xet });
  if (!blob) throw new UserError(`${repo} has no ${entry.path}`, { code: ExitCode.notFound, hint: "Try again." });

  const hash = entry.lfs ? createHash("sha256") : createHash("sha1").update(`blob ${entry.size}\0`);
  let size = 0;
  async function* measured(chunks: AsyncIterable<Uint8Array>) {
    for await (const chunk of chunks) {
      hash.update(chunk);
      size += chunk.length;
      report(entry.path, chunk.length);
      yield chunk;
    }
  }
  try {
    await pipeline(Readable.fromWeb(blob.stream() as never), measured, createWriteStream(temporary), { signal: stop });
    if (size !== entry.size || hash.digest("hex") !== etagOf(entry)) {
      throw new UserError(`${entry.path} of ${repo} arrived damaged (${size} of ${entry.size} bytes)`, {
        hint: "Try again.",
      });
    }
    await rename(temporary, target);
  } finally {
    await rm(temporary, { force: true });
  }
}

/** Links a snapshot's file to its blob, by a relative path, as Python does. */
async function link(blob: string, file: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  await symlink(relative(dirname(file), blob), file).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "EEXIST") throw error;
  });
}

/** Last of all: from here on the snapshot is found. */
async function writeRef(cache: string, repo: string, revision: string, commit: string): Promise<void> {
  if (revision === commit) return;
  const ref = join(repoFolder(cache, repo), "refs", revision);
  const temporary = `${ref}.${randomUUID()}`;
  await mkdir(dirname(ref), { recursive: true });
  await writeFile(temporary, commit);
  await rename(temporary, ref);
}
