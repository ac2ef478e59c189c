/** A checkpoint outside of the cache: a folder, or one file. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { type CheckpointFacts, describeCheckpoint } from "./describe";

export interface LocalCheckpoint extends CheckpointFacts {
  /** As it was named. */
  id: string;
  path: string;
  /** Bytes. */
  size: number;
  files: number;
  /** Whether one of them holds weights. */
  has_weights: boolean;
  modified: Date;
}

/** Null where there is no such folder or file, or it has no configuration that can be read. */
export async function localCheckpoint(id: string, path: string): Promise<LocalCheckpoint | null> {
  const facts = await stat(path).catch(() => null);
  if (!facts?.isFile() && !facts?.isDirectory()) return null;
  const known = await describeCheckpoint(path);
  if (!known) return null;
  const paths = facts.isFile() ? [path] : (await readdir(path)).map((name) => join(path, name));
  const files = (await Promise.all(paths.map((one) => stat(one).catch(() => null)))).filter((one) => one?.isFile());
  const size = files.reduce((sum, one) => sum + one!.size, 0);
  const has_weights = facts.isFile() || paths.some((one) => /\.(safetensors|gguf)$/i.test(one));
  return { id, path, size, files: files.length, has_weights, modified: facts.mtime, ...known };
}
