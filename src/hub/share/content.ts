/** Files on their way from one rank to the others. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { ExitCode, UserError } from "../../errors";
import type { distributed } from "../../mlx";
import { broadcast, gatherJson } from "../../mlx/group-messages";
import { systemError } from "../../system-errors";

/** Bytes of a file that go at once. */
export const chunkBytes = 32 << 20;

/** Does its part on this rank, then makes sure that all did theirs. @throws UserError that names the rank which could not */
export async function together<T>(group: distributed.Group, work: () => T | Promise<T>): Promise<T> {
  let result: T | undefined;
  let problem: { message: string; hint?: string; code: ExitCode } | null = null;
  try {
    result = await work();
  } catch (error) {
    problem = problemOf(error);
  }
  const problems = gatherJson(group, problem);
  const rank = problems.findIndex((one) => one !== null);
  if (rank < 0) return result as T;
  const { message, hint, code } = problems[rank]!;
  throw new UserError(`rank ${rank}: ${message}`, { code, hint });
}

function problemOf(error: unknown): { message: string; hint?: string; code: ExitCode } {
  const known = error instanceof UserError ? error : systemError(error);
  if (!known) throw error;
  return { message: known.message, hint: known.hint, code: known.code };
}

export interface Transfer {
  group: distributed.Group;
  /** The rank that has the file. */
  source: number;
  /** Told how many bytes of this file are through. */
  onBytes?: (done: number) => void;
  signal?: AbortSignal;
}

/**
 * Sends a file to all other ranks. Those that take it write it as it comes. All ranks call it.
 * @param from the file, on the rank that has it
 * @param to where it is written on this rank; null where it is not wanted
 * @throws UserError where a rank cannot read or write, or what was written is not what was read
 */
export async function transfer(
  { group, source, onBytes, signal }: Transfer,
  { from, to, size }: { from: string; to: string | null; size: number },
): Promise<void> {
  const isSource = group.rank === source;
  const file = await together(group, async () => {
    if (isSource) return await open(from, "r");
    return to === null ? null : await open(to, "wx");
  });
  try {
    const sent = createHash("sha256");
    let written: Promise<void> = Promise.resolve();
    let next = isSource ? readChunk(file!, 0) : null;
    for (let done = 0; done < size; ) {
      const length = Math.min(chunkBytes, size - done);
      const own = await together(group, async () => {
        if (signal?.aborted) throw new UserError("stopped: nothing was shared", { code: ExitCode.interrupted });
        // What was begun with the chunk before.
        await written;
        const bytes = await next;
        if (bytes && bytes.length !== length) throw changed(from);
        return bytes;
      });
      // The disks work while the network does.
      if (isSource) next = readChunk(file!, done + length);
      next?.catch(() => {});
      const chunk = broadcast(group, own, source);
      if (isSource) sent.update(chunk);
      else if (file) written = writeAll(file, chunk);
      written.catch(() => {});
      done += length;
      onBytes?.(done);
    }
    const digest = await together(group, async () => {
      await written;
      if (isSource && (await next)!.length > 0) throw changed(from);
      if (isSource || !file) return isSource ? sent.digest("hex") : null;
      await file.sync();
      return await hashOfFile(to!);
    });
    const digests = gatherJson(group, digest);
    const wrong = digests.findIndex((one) => one !== null && one !== digests[source]);
    if (wrong < 0) return;
    throw new UserError(`what rank ${wrong} wrote of ${from} is not what was sent`, {
      hint: "Check that host's disk and memory, then try again.",
    });
  } finally {
    await file?.close();
  }
}

/** The SHA-256 of what a file holds. */
export async function hashOfFile(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk);
  return hash.digest("hex");
}

async function readChunk(file: FileHandle, position: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(chunkBytes);
  let length = 0;
  while (length < bytes.length) {
    const { bytesRead } = await file.read(bytes, length, bytes.length - length, position + length);
    if (bytesRead === 0) break;
    length += bytesRead;
  }
  return bytes.subarray(0, length);
}

async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; ) at += (await file.write(bytes, at)).bytesWritten;
}

function changed(path: string): UserError {
  return new UserError(`${path} changed while it was sent`, {
    hint: "Share it when nothing writes to it.",
  });
}
