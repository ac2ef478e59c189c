/** A model on the hub, looked at before it is downloaded: its files, its configuration, the headers of its weights. */
import { stat, statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { ListFileEntry } from "@huggingface/hub";
import { UserError } from "../errors";
import type { JsonObject } from "../json-file";
import { parseHeader, type SafetensorsHeader, type TensorEntry } from "../mlx/safetensors-header";
import { AnswerLimits } from "./answer-limits";
import { type HubRepo, mainRevision, repoFolder } from "./cache-layout";
import { modelCommit, modelFiles } from "./download";
import { hubCache } from "./environment";
import { type HubOptions, hubFetch, hubUrl, ownToken } from "./http";
import { hubError } from "./hub-error";
import { etagOf } from "./snapshot";

export interface PeekedModel {
  /** Bytes of the files that a download would bring, and how many there are. */
  size: number;
  files: number;
  /** Bytes of those that the cache lacks. */
  missing: number;
  config: JsonObject;
  /** Of all weight files, by the checkpoint's names. */
  tensors: Map<string, TensorEntry>;
}

/** Larger than any real configuration. */
const largestConfig = 4 * 2 ** 20;

/** Most headers are shorter: one request is enough then. */
const firstRead = 128 * 1024;
const largestHeader = 64 * 2 ** 20;

/** How many headers are asked for at a time. */
const parallel = 8;

/** @throws UserError for what the hub refuses, a network that fails, and files that are not sound */
export async function peekModel(name: string, options: HubOptions = {}): Promise<PeekedModel> {
  const repo: HubRepo = { type: "model", name };
  const cache = hubCache();
  try {
    const commit = await modelCommit(name, mainRevision, options);
    const entries = await modelFiles(repo, commit, { ...options, cache });
    const read = (entry: ListFileEntry, length: number) => beginningOf(repo, commit, entry, length, options);
    const config = entries.find(({ path }) => path === "config.json")!;
    if (config.size > largestConfig) throw unsound(config.path, name, "it is too large");
    const tensors = new Map<string, TensorEntry>();
    const queue = entries.filter(({ path }) => path.endsWith(".safetensors"));
    const worker = async () => {
      for (let entry = queue.shift(); entry; entry = queue.shift()) {
        for (const [tensor, facts] of (await headerOf(entry, name, read)).tensors) tensors.set(tensor, facts);
      }
    };
    const [text] = await Promise.all([read(config, config.size), ...Array.from({ length: parallel }, worker)]);
    return {
      size: entries.reduce((sum, { size }) => sum + size, 0),
      files: entries.length,
      missing: await missingBytes(cache, repo, entries),
      config: configOf(text, name),
      tensors,
    };
  } catch (error) {
    throw hubError(error, { name, revision: mainRevision, mayBePath: true, page: `${hubUrl()}/${name}`, ...options });
  }
}

/**
 * The headers of weight files of a commit, and the files' sizes.
 * @throws UserError for what the hub refuses, a network that fails, and files that are not sound
 */
export async function peekHeaders(
  name: string,
  commit: string,
  files: ReadonlySet<string>,
  options: HubOptions = {},
): Promise<Map<string, { header: SafetensorsHeader; size: number }>> {
  const repo: HubRepo = { type: "model", name };
  try {
    const entries = await modelFiles(repo, commit, { ...options, cache: hubCache() });
    const queue = entries.filter(({ path }) => files.has(path));
    const headers = new Map<string, { header: SafetensorsHeader; size: number }>();
    const read = (entry: ListFileEntry, length: number) => beginningOf(repo, commit, entry, length, options);
    const worker = async () => {
      for (let entry = queue.shift(); entry; entry = queue.shift()) {
        headers.set(entry.path, { header: await headerOf(entry, name, read), size: entry.size });
      }
    };
    await Promise.all(Array.from({ length: parallel }, worker));
    return headers;
  } catch (error) {
    throw hubError(error, { name, revision: commit, page: `${hubUrl()}/${name}`, ...options });
  }
}

const unsound = (path: string, name: string, problem: string) =>
  new UserError(`${path} of ${name} is not sound: ${problem}`, { hint: "Take another repo." });

function configOf(bytes: Uint8Array, name: string): JsonObject {
  try {
    const value: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as JsonObject;
  } catch {
    // Told below.
  }
  throw unsound("config.json", name, "it is no JSON object");
}

async function headerOf(
  entry: ListFileEntry,
  name: string,
  read: (entry: ListFileEntry, length: number) => Promise<Uint8Array>,
): Promise<SafetensorsHeader> {
  const { path, size } = entry;
  const wrong = (problem: string): never => {
    throw unsound(path, name, problem);
  };
  let bytes = await read(entry, Math.min(size, firstRead));
  if (bytes.length < 8) wrong("it has no header");
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  if (length > largestHeader || 8 + length > size) wrong(`its header claims ${length} bytes`);
  if (8 + length > bytes.length) bytes = await read(entry, 8 + length);
  return parseHeader(bytes.subarray(8, 8 + length), size - 8 - length, wrong);
}

/** So many first bytes of a file. A server that takes no ranges sends more, which are not read. */
async function beginningOf(
  { name }: HubRepo,
  commit: string,
  { path }: ListFileEntry,
  length: number,
  options: HubOptions,
): Promise<Uint8Array> {
  const ended = new AbortController();
  const stops = [ended.signal, options.signal].filter((one) => one !== undefined);
  const response = await hubFetch(
    `${hubUrl()}/${name}/resolve/${commit}/${path.split("/").map(encodeURIComponent).join("/")}`,
    { headers: { Authorization: `Bearer ${ownToken}`, Range: `bytes=0-${length - 1}` } },
    { ...options, signal: AbortSignal.any(stops) },
    new AnswerLimits("file"),
  );
  if (!response.ok || !response.body) throw unsound(path, name, `the hub answers ${response.status}`);
  const bytes = new Uint8Array(length);
  let at = 0;
  const reader = response.body.getReader();
  while (at < length) {
    const { done, value } = await reader.read();
    if (done) throw unsound(path, name, `it ends after ${at} bytes`);
    bytes.set(value.subarray(0, length - at), at);
    at += Math.min(value.length, length - at);
  }
  ended.abort();
  reader.cancel().catch(() => {});
  return bytes;
}

async function missingBytes(cache: string, repo: HubRepo, entries: readonly ListFileEntry[]): Promise<number> {
  let missing = 0;
  for (const entry of entries) {
    const facts = await stat(join(repoFolder(cache, repo), "blobs", etagOf(entry))).catch(() => null);
    if (facts?.size !== entry.size) missing += entry.size;
  }
  return missing;
}

/** Bytes that are free on the disk of the cache, which need not be there yet. */
export async function freeForCache(): Promise<{ cache: string; free: number }> {
  const cache = hubCache();
  for (let at = cache; ; at = dirname(at)) {
    const facts = await statfs(at).catch(() => null);
    if (facts) return { cache, free: facts.bavail * facts.bsize };
    if (dirname(at) === at) return { cache, free: Number.POSITIVE_INFINITY };
  }
}
