/** The bytes of one file of a repo, from where an earlier attempt ended. */
import { setTimeout as sleep } from "node:timers/promises";
import { downloadFile, fileDownloadInfo, HubApiError, type ListFileEntry } from "@huggingface/hub";
import { ExitCode, UserError } from "../errors";
import { AnswerLimits } from "./answer-limits";
import type { HubRepo } from "./cache-layout";
import { usesXet } from "./environment";
import { attempts, type HubOptions, hubFetch, hubParameters, hubUrl, isPassing, ownToken, pause } from "./http";
import type { PartialFile } from "./partial-file";

/** After so many attempts by Xet that brought nothing, the file is asked of the hub itself. */
const xetAttempts = 2;

export interface RemoteFile {
  repo: HubRepo;
  commit: string;
  entry: ListFileEntry;
  onWait?: HubOptions["onWait"];
}

/**
 * Appends what is missing. A connection that ends, or from which nothing comes, is made anew from the byte that it
 * had come to; that counts as a failure only where nothing had come.
 * @param onBytes called with a negative count where bytes have to be fetched again
 */
export async function fetchFile(
  remote: RemoteFile,
  part: PartialFile,
  onBytes: (count: number) => void,
  stop: AbortSignal,
): Promise<void> {
  const { size, path, lfs } = remote.entry;
  let failures = 0;
  while (part.offset < size) {
    const before = part.offset;
    try {
      const byXet = lfs !== undefined && usesXet() && failures < xetAttempts;
      for await (const chunk of bytes(remote, part, byXet, onBytes, stop)) {
        if (part.offset + chunk.length > size) throw damaged(remote, part.offset + chunk.length);
        await part.append(chunk);
        onBytes(chunk.length);
      }
      if (part.offset < size) throw new Error(`${path} was cut off after ${part.offset} of ${size} bytes`);
    } catch (error) {
      if (stop.aborted || !isPassing(error)) throw error;
      failures = part.offset > before ? 1 : failures + 1;
      if (failures === attempts) throw error;
      await sleep(pause(failures - 1), undefined, { signal: stop });
    }
  }
}

export function damaged({ repo, entry }: RemoteFile, got: number): UserError {
  return new UserError(`${entry.path} of ${repo.name} arrived damaged (${got} of ${entry.size} bytes)`, {
    hint: "Try again. If it stays so, something between here and the hub changes what it sends.",
  });
}

async function* bytes(
  remote: RemoteFile,
  part: PartialFile,
  byXet: boolean,
  onBytes: (count: number) => void,
  stop: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const ended = new AbortController();
  const signal = AbortSignal.any([stop, ended.signal]);
  const stream =
    (byXet ? await xetStream(remote, part, signal) : null) ?? (await plainStream(remote, part, onBytes, signal));
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    ended.abort();
    reader.cancel().catch(() => {});
  }
}

/** Large files may lie in the hub's Xet storage, in pieces that its client puts together. */
async function xetStream(
  { repo, commit, entry, onWait }: RemoteFile,
  part: PartialFile,
  signal: AbortSignal,
): Promise<ReadableStream<Uint8Array> | null> {
  const remote = { ...hubParameters({ signal, onWait }, "pieces"), repo, path: entry.path, revision: commit };
  const downloadInfo = await fileDownloadInfo(remote);
  if (!downloadInfo?.xet) return null;
  const blob = await downloadFile({ ...remote, downloadInfo });
  return (blob?.slice(part.offset).stream() as ReadableStream<Uint8Array> | undefined) ?? null;
}

async function plainStream(
  { repo, commit, entry, onWait }: RemoteFile,
  part: PartialFile,
  onBytes: (count: number) => void,
  signal: AbortSignal,
): Promise<ReadableStream<Uint8Array>> {
  const name = entry.path.split("/").map(encodeURIComponent).join("/");
  const folder = repo.type === "model" ? "" : `${repo.type}s/`;
  const ask = async () => {
    const headers = new Headers({ Authorization: `Bearer ${ownToken}` });
    if (part.offset > 0) headers.set("Range", `bytes=${part.offset}-`);
    const url = `${hubUrl()}/${folder}${repo.name}/resolve/${commit}/${name}`;
    return hubFetch(url, { headers }, { signal, onWait }, new AnswerLimits("file"));
  };
  const startOver = async () => {
    onBytes(-part.offset);
    await part.restart();
  };
  let response = await ask();
  // Some servers send all of a file whatever is asked; others find the range wrong, or give another one.
  if (part.offset > 0 && response.status === 200) await startOver();
  else if (part.offset > 0 && [206, 416].includes(response.status) && !continues(response, part.offset)) {
    await response.body?.cancel();
    await startOver();
    response = await ask();
  }
  if (response.status === 404) {
    throw new UserError(`${repo.name} has no ${entry.path}`, { code: ExitCode.notFound, hint: "Try again." });
  }
  if (!response.ok) {
    const text = (await response.text()).slice(0, 200);
    throw new HubApiError(response.url, response.status, undefined, text || response.statusText);
  }
  return response.body ?? new Blob([]).stream();
}

/** Whether an answer begins at the byte that was asked for. */
function continues({ status, headers }: Response, offset: number): boolean {
  return status === 206 && Number(/^bytes (\d+)-/.exec(headers.get("Content-Range") ?? "")?.[1]) === offset;
}
