/** A model, or any file or folder, goes from the rank that has it to all others. */
import { readFileSync } from "node:fs";
import { stat } from "node:fs/promises";
import { hostname } from "node:os";
import { join, resolve } from "node:path";
import { ExitCode, UserError } from "../../errors";
import type { distributed } from "../../mlx";
import { gatherJson } from "../../mlx/group-messages";
import { type HubRepo, mainRevision, refFile, repoFolder } from "../cache-layout";
import { hubCache } from "../environment";
import { resolveModel } from "../resolve";
import { together, transfer } from "./content";
import { checkedEntries, type Entry, entriesOf, itself } from "./entries";
import { Arrival, hashes, lacking, markOf } from "./place";

export interface ShareRequest {
  /** A file or folder. */
  path?: string;
  /** A folder, a GGUF file or a repo in the cache, where `path` is absent or not there. */
  model?: string;
  /** Where it goes on the other ranks; the same place as on the one that has it, unless said. */
  dst?: string;
  /** Where it lies on the other ranks until it is whole; beside its place, unless said. */
  tmpdir?: string;
}

export interface ShareOptions {
  onStart?: (what: { source: number; files: number; bytes: number }) => void;
  /** Bytes of all files. */
  onProgress?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

export interface Shared {
  /** The rank that it came from. */
  source: number;
  files: number;
  bytes: number;
  /** Where each rank has it, by rank. */
  places: string[];
  /** The ranks that had it already. */
  had: number[];
}

/** What a rank has of what is to be shared. */
interface Found {
  root: string;
  /** A repo of the cache, which has its place in the cache of each host. */
  repo: HubRepo | null;
  /** When the cache last heard from the hub: of several copies of a repo the newest goes to the others. */
  date: number;
}

/** All ranks call it. @throws UserError where nobody has it, or a rank cannot read or write */
export async function share(
  group: distributed.Group,
  request: ShareRequest,
  { onStart, onProgress, signal }: ShareOptions = {},
): Promise<Shared> {
  const found = await together(group, () => find(request));
  const founds = gatherJson(group, found);
  const newest = Math.max(...founds.map((one) => one?.date ?? -1));
  const source = founds.findIndex((one) => one?.date === newest);
  if (source < 0) {
    const name = request.path ?? request.model;
    throw new UserError(`no host has ${name}`, {
      code: ExitCode.notFound,
      hint: "Name a file or folder that one of them has, or a repo that was downloaded there: mlxlm generate --model REPO",
    });
  }
  const { root, repo } = founds[source]!;
  const isSource = group.rank === source;
  const own = await together(group, () => (isSource ? entriesOf(root) : []));
  const entries = await together(group, () => checkedEntries(gatherJson(group, own)[source]));
  if (!entries.some(({ type }) => type === "file")) {
    throw new UserError(`${root} has no files`, { code: ExitCode.usage, hint: "Name a folder with files." });
  }
  const place = isSource ? root : placeOf(request, root, repo);
  const places = gatherJson(group, place);
  const wanted = await wantedFiles(group, { source, entries, place, isCache: repo !== null });
  const isWanted = entries.map((_, i) => wanted.some((files) => files?.has(i)));
  const sizes = entries.map((entry) => (entry.type === "file" ? entry.size : 0));
  const sum = (which: (i: number) => boolean | undefined) =>
    sizes.reduce((all, size, i) => all + (which(i) ? size : 0), 0);
  const total = sum((i) => isWanted[i]);
  const files = isWanted.filter(Boolean).length;
  const result = {
    source,
    files,
    bytes: total,
    places,
    had: wanted.flatMap((one, rank) => (rank !== source && one?.size === 0 ? [rank] : [])),
  };
  const takes = wanted[group.rank]!;
  if (wanted.every((one) => one === null || one.size === 0)) return result;
  onStart?.({ source, files, bytes: total });

  const receives = !isSource && takes.size > 0;
  const arrival = receives ? new Arrival(place, request.tmpdir && resolve(request.tmpdir)) : null;
  try {
    await together(group, () =>
      arrival?.begin(
        entries,
        sum((i) => takes.has(i)),
      ),
    );
    let before = 0;
    for (const [i, entry] of entries.entries()) {
      if (entry.type !== "file" || !isWanted[i]) continue;
      const to = arrival && takes.has(i) ? arrival.pathOf(entry) : null;
      const onBytes = (done: number) => onProgress?.(before + done, total);
      const from = entry.path === itself ? root : join(root, entry.path);
      await transfer({ group, source, onBytes, signal }, { from, to, size: entry.size });
      before += entry.size;
    }
    await together(group, () => arrival?.end(entries));
  } finally {
    await arrival?.drop();
  }
  return result;
}

async function find({ path, model }: ShareRequest): Promise<Found | null> {
  if (path !== undefined && (await stat(path).catch(() => null))) return { root: resolve(path), repo: null, date: 0 };
  if (model === undefined) return null;
  try {
    const { path: folder, repo } = await resolveModel(model, { offline: true });
    if (repo === undefined) return { root: folder, repo: null, date: 0 };
    const named: HubRepo = { type: "model", name: repo };
    const heard = await stat(refFile(hubCache(), named, mainRevision)).catch(() => null);
    return { root: repoFolder(hubCache(), named), repo: named, date: heard?.mtimeMs ?? 0 };
  } catch (error) {
    // A name that can be no model is everyone's error.
    if (error instanceof UserError && error.code === ExitCode.notFound) return null;
    throw error;
  }
}

function placeOf({ dst }: ShareRequest, root: string, repo: HubRepo | null): string {
  if (dst !== undefined) return resolve(dst);
  return repo ? repoFolder(hubCache(), repo) : root;
}

/**
 * The files that each rank is to get, by their number; none where it has all. Of ranks that have one disk, the first gets them.
 * @throws UserError where a rank has something else in that place
 */
async function wantedFiles(
  group: distributed.Group,
  { source, entries, place, isCache }: { source: number; entries: readonly Entry[]; place: string; isCache: boolean },
): Promise<Set<number>[]> {
  const isSource = group.rank === source;
  const all = new Set(entries.flatMap(({ type }, i) => (type === "file" ? [i] : [])));
  const mark = await together(group, () => markOf(place, machine()));
  const marks = gatherJson(group, mark);
  const isFirst = marks.indexOf(mark) === group.rank && (isSource || mark !== marks[source]);
  const lacks = await together(group, () => (isSource || !isFirst ? new Set<number>() : lacking(place, entries)));
  const isThere = !isSource && isFirst && lacks !== null;
  // In a cache files have names by what they hold, but for the commits that branches stand for.
  const named = isCache ? entries.filter(({ path }) => path.startsWith("refs/")) : entries;
  const isAsked = gatherJson(group, isThere).some(Boolean);
  const ofSource = await together(group, () => (isSource && isAsked ? hashes(place, named) : null));
  const theirs = gatherJson(group, ofSource)[source];
  await together(group, async () => {
    if (!isThere) return;
    const there = named.filter((entry) => !lacks.has(entries.indexOf(entry)));
    const ours = await hashes(place, there);
    for (const entry of there) if (ours[entry.path] !== theirs![entry.path]) lacks.add(entries.indexOf(entry));
    if (isCache || lacks.size === 0) return;
    throw new UserError(`${place} exists already, and is something else`, {
      code: ExitCode.usage,
      hint: "Delete it there, or name another place: --dst FOLDER",
    });
  });
  const own = isSource || !isFirst ? [] : [...(lacks ?? all)];
  return gatherJson(group, own).map((files) => new Set(files));
}

function machine(): string {
  try {
    return `${hostname()} ${readFileSync("/proc/sys/kernel/random/boot_id", "utf8")}`;
  } catch {
    return hostname();
  }
}
