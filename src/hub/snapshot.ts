/** Files of a repo in the shared cache, as a snapshot of one commit. */
import { randomUUID } from "node:crypto";
import { mkdir, readlink, rename, rm, stat, statfs, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { type ListFileEntry, listFiles } from "@huggingface/hub";
import { ExitCode, UserError } from "../errors";
import { type HubRepo, isCommit, refFile, repoFolder, snapshotFolder } from "./cache-layout";
import { damaged, fetchFile, type RemoteFile } from "./fetch-file";
import { type HubOptions, hubParameters } from "./http";
import { leftBytes, PartialFile } from "./partial-file";
import { checkFileName } from "./repo-id";

export interface DownloadProgress {
  /** The file that just got more bytes. */
  file: string;
  /** Bytes of all files so far, with those that an earlier download left, and in the end. */
  done: number;
  total: number;
  /** How many files there are. */
  files: number;
}

export interface SnapshotOptions {
  /** The folder of all repos. */
  cache: string;
  onProgress?: (progress: DownloadProgress) => void;
  /** Told where the hub asks to wait, and it takes a while. */
  onWait?: (line: string) => void;
  signal?: AbortSignal;
}

/** How many files are fetched at a time. */
const parallel = 4;

/** @throws UserError for what the hub calls a commit and is none: it becomes the name of a folder */
export function checkCommit(commit: string, repo: string): void {
  if (typeof commit === "string" && isCommit(commit)) return;
  throw new UserError(`the hub names ${JSON.stringify(commit)} as the commit of ${repo}, which is none`, {
    hint: "Try again later.",
  });
}

/** The files of a commit whose names pass. @throws UserError for a name that would lead out of the snapshot */
export async function filesOf(
  repo: HubRepo,
  commit: string,
  passes: (name: string) => boolean,
  { recursive = false, ...options }: HubOptions & { recursive?: boolean } = {},
): Promise<ListFileEntry[]> {
  const entries: ListFileEntry[] = [];
  for await (const entry of listFiles({ ...hubParameters(options), repo, revision: commit, recursive })) {
    if (entry.type !== "file") continue;
    checkFileName(entry.path, repo.name);
    if (passes(entry.path)) entries.push(entry);
  }
  return entries;
}

/**
 * Fetches what of these files is not in the cache, and returns the snapshot's folder. What an interrupted download left
 * of a file is continued. Each file is written under a name of its own, checked, and renamed: two processes may do this
 * at once.
 * @throws UserError for files that are not what was promised and a disk that is too small; errors of the hub and the
 * disk otherwise
 */
export async function fetchSnapshot(
  repo: HubRepo,
  commit: string,
  entries: readonly ListFileEntry[],
  { cache, onProgress, onWait, signal }: SnapshotOptions,
): Promise<string> {
  const blobs = join(repoFolder(cache, repo), "blobs");
  const missing: ListFileEntry[] = [];
  // Files of the same content are one blob.
  for (const entry of new Map(entries.map((one) => [etagOf(one), one])).values()) {
    const facts = await stat(join(blobs, etagOf(entry))).catch(() => null);
    if (facts?.size !== entry.size) missing.push(entry);
  }
  const total = missing.reduce((sum, { size }) => sum + size, 0);
  const left = await leftBytes(blobs);
  await checkSpace(cache, total - missing.reduce((sum, entry) => sum + (left.get(etagOf(entry)) ?? 0), 0), repo.name);

  let done = 0;
  const fetchOne = (entry: ListFileEntry, stop: AbortSignal) =>
    fetchBlob({ repo, commit, entry, onWait }, join(blobs, etagOf(entry)), stop, (bytes) => {
      done += bytes;
      onProgress?.({ file: entry.path, done, total, files: missing.length });
    });
  await fetchAll(missing, fetchOne, signal);

  const snapshot = snapshotFolder(cache, repo, commit);
  for (const entry of entries) await link(join(blobs, etagOf(entry)), join(snapshot, entry.path));
  return snapshot;
}

/** Last of all: from here on the snapshot is found. */
export async function writeRef(cache: string, repo: HubRepo, revision: string, commit: string): Promise<void> {
  if (revision === commit) return;
  const ref = refFile(cache, repo, revision);
  const temporary = `${ref}.${randomUUID()}`;
  await mkdir(dirname(ref), { recursive: true });
  await writeFile(temporary, commit);
  await rename(temporary, ref);
}

/** The name of a file's content: the SHA-256 of a large file, git's hash of a small one. */
export function etagOf({ lfs, oid, path }: ListFileEntry): string {
  const etag = lfs?.oid ?? oid ?? "";
  if (!/^([0-9a-f]{40}|[0-9a-f]{64})$/.test(etag))
    throw new UserError(`the hub gives no hash for ${path}`, { hint: "Try again later." });
  return etag;
}

async function checkSpace(cache: string, needed: number, repo: string): Promise<void> {
  await mkdir(cache, { recursive: true });
  const { bavail, bsize } = await statfs(cache);
  const free = bavail * bsize;
  if (free >= needed) return;
  const gigabytes = (bytes: number) => `${(Math.ceil(bytes / 1e8) / 10).toFixed(1)} GB`;
  throw new UserError(
    `${repo} needs ${gigabytes(needed)} on ${cache}, ${gigabytes(needed - free)} more than are free there`,
    {
      code: ExitCode.resources,
      hint: `${gigabytes(free)} are free. Make room (mlxlm models rm NAME), or name another cache: HF_HUB_CACHE=/path`,
    },
  );
}

/** Fetches a few files at a time. When one fails, or the user asks, the others are stopped and put away first. */
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
  if (cause) throw cause;
  signal?.throwIfAborted();
}

async function fetchBlob(
  remote: RemoteFile,
  target: string,
  stop: AbortSignal,
  onBytes: (count: number) => void,
): Promise<void> {
  const { size } = remote.entry;
  const part = await PartialFile.open(target, { size, hash: etagOf(remote.entry) }, stop);
  let useless = false;
  try {
    if (part.offset > 0) onBytes(part.offset);
    await fetchFile(remote, part, onBytes, stop);
    if (await part.finish()) return;
    // What was left by another process, or came over a bad line: once more, from the start.
    onBytes(-part.offset);
    await part.restart();
    await fetchFile(remote, part, onBytes, stop);
    if (await part.finish()) return;
    useless = true;
    throw damaged(remote, part.offset);
  } finally {
    await part.release(useless);
  }
}

/** Links a snapshot's file to its blob, by a relative path, as Python does. */
async function link(blob: string, file: string): Promise<void> {
  const target = relative(dirname(file), blob);
  await mkdir(dirname(file), { recursive: true });
  if ((await readlink(file).catch(() => null)) === target) return;
  const temporary = `${file}.${randomUUID().slice(0, 8)}`;
  try {
    await symlink(target, temporary);
    await rename(temporary, file);
  } finally {
    await rm(temporary, { force: true });
  }
}
