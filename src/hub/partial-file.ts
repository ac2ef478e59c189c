/**
 * A blob on its way into the cache. It is written under a name that only one process has, and gets its own name when
 * all of it is there and has the right hash. What a process leaves unfinished, another continues: it takes it over by
 * a rename, in which only one can succeed. No locks: they do nothing on some network file systems.
 */
import { createHash, type Hash, randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { type FileHandle, lstat, mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { hostname } from "node:os";
import { basename, dirname, join } from "node:path";
import { isRunning } from "../leftovers";

export interface BlobFacts {
  /** Bytes. */
  size: number;
  /** SHA-256 of a large file, git's SHA-1 of a small one, in hex. */
  hash: string;
}

/** A writer on another machine that has written nothing for so many milliseconds has ended. */
const abandonedAfter = 10 * 60_000;

const machine = hostname()
  .replace(/[^\w-]/g, "_")
  .slice(0, 64);

const mark = () => randomUUID().slice(0, 8);

/** `<hash>.<machine>.<process>.<mark>.incomplete` of a writer, `<hash>.<mark>.incomplete` of none. */
const partName = /^([0-9a-f]+)\.(?:([\w-]+)\.(\d+)\.)?[0-9a-f]{8}\.incomplete$/;

export class PartialFile {
  /** Bytes that are there. */
  offset = 0;
  private digest: Hash;

  private constructor(
    private readonly target: string,
    private readonly path: string,
    private readonly file: FileHandle,
    private readonly facts: BlobFacts,
  ) {
    this.digest = newHash(facts);
  }

  /** Continues what was left of the blob `target`, or begins anew. */
  static async open(target: string, facts: BlobFacts, signal?: AbortSignal): Promise<PartialFile> {
    await mkdir(dirname(target), { recursive: true });
    const path = join(dirname(target), `${basename(target)}.${machine}.${process.pid}.${mark()}.incomplete`);
    const left = await takeOver(target, path, facts.size);
    const part = new PartialFile(target, path, await open(path, left ? "r+" : "wx"), facts);
    try {
      if (left) await part.readBack(signal);
    } catch (error) {
      await part.release();
      throw error;
    }
    return part;
  }

  /** Hashes what is there already. */
  private async readBack(signal?: AbortSignal): Promise<void> {
    for await (const chunk of createReadStream(this.path, { highWaterMark: 2 ** 20, signal })) {
      this.digest.update(chunk);
      this.offset += chunk.length;
    }
  }

  async append(chunk: Uint8Array): Promise<void> {
    for (let done = 0; done < chunk.length; ) {
      const { bytesWritten } = await this.file.write(chunk, done, chunk.length - done, this.offset);
      this.digest.update(chunk.subarray(done, done + bytesWritten));
      this.offset += bytesWritten;
      done += bytesWritten;
    }
  }

  async restart(): Promise<void> {
    await this.file.truncate(0);
    this.offset = 0;
    this.digest = newHash(this.facts);
  }

  /** Gives the blob its name, where it is whole. @returns false where it is not what was promised: nothing changed */
  async finish(): Promise<boolean> {
    if (this.offset !== this.facts.size || this.digest.copy().digest("hex") !== this.facts.hash) return false;
    await this.file.sync();
    await rename(this.path, this.target);
    return true;
  }

  /** Closes the file; what is unfinished stays for the next one, unless nothing is there or it is `useless`. */
  async release(useless = false): Promise<void> {
    await this.file.close();
    if (useless || this.offset === 0) return rm(this.path, { force: true });
    const free = join(dirname(this.target), `${basename(this.target)}.${mark()}.incomplete`);
    await rename(this.path, free).catch((error: NodeJS.ErrnoException) => {
      // Finished: it has its own name.
      if (error.code !== "ENOENT") throw error;
    });
  }
}

/** Git hashes a length and the content. */
function newHash({ size, hash }: BlobFacts): Hash {
  return hash.length === 64 ? createHash("sha256") : createHash("sha1").update(`blob ${size}\0`);
}

/** Bytes of the largest part of each blob that can be continued, in the folder of blobs. */
export async function leftBytes(folder: string): Promise<Map<string, number>> {
  const found = new Map<string, number>();
  for (const { hash, size } of await abandoned(folder)) found.set(hash, Math.max(size, found.get(hash) ?? 0));
  return found;
}

/** Renames the largest part of the blob that no process writes to `path`, and removes the others. */
async function takeOver(target: string, path: string, size: number): Promise<boolean> {
  const parts = (await abandoned(dirname(target))).filter(({ hash }) => hash === basename(target));
  let taken = false;
  for (const part of parts.sort((a, b) => b.size - a.size)) {
    if (taken || part.size > size) await rm(part.path, { force: true });
    else {
      taken = await rename(part.path, path).then(
        () => true,
        () => false,
      );
    }
  }
  return taken;
}

async function abandoned(folder: string): Promise<{ hash: string; path: string; size: number }[]> {
  const parts: { hash: string; path: string; size: number }[] = [];
  for (const name of await readdir(folder).catch(() => [])) {
    const [, hash, host, pid] = partName.exec(name) ?? [];
    if (!hash) continue;
    const facts = await lstat(join(folder, name)).catch(() => null);
    if (!facts?.isFile()) continue;
    const isSilent = Date.now() - facts.mtimeMs > abandonedAfter;
    const hasEnded = host === undefined || isSilent || (host === machine && !isRunning(Number(pid)));
    if (hasEnded) parts.push({ hash, path: join(folder, name), size: facts.size });
  }
  return parts;
}
