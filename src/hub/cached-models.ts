/** The repos in the shared Hugging Face cache: what is there, and removing them. */
import type { Stats } from "node:fs";
import { readdir, realpath, rm, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { ExitCode, UserError } from "../errors";
import { hubCache } from "./environment";
import { filesBelow } from "./files-below";

export interface CachedRepo {
  id: string;
  /** model, dataset, space */
  type: string;
  /** Bytes on disk of the files that snapshots have: those that several have count once. */
  size: number;
  files: number;
  accessed: Date;
  modified: Date;
  path: string;
  /** Commits that there are snapshots of. */
  revisions: string[];
  /** Bytes that interrupted downloads left. */
  incomplete: number;
}

const repoName = /^(model|dataset|space|kernel)s--(.+)$/;

/**
 * The cached repos whose name contains `pattern`, in the order of their paths, and what could not be read.
 * @throws UserError where there is no cache
 */
export async function cachedRepos(pattern: string): Promise<{ repos: CachedRepo[]; problems: string[] }> {
  const cache = hubCache();
  if (!(await stat(cache).catch(() => null))?.isDirectory()) {
    throw new UserError(`there is no Hugging Face cache yet: ${cache}`, {
      code: ExitCode.notFound,
      hint: "It is made by the first download. HF_HUB_CACHE or HF_HOME name another place.",
    });
  }
  const repos: CachedRepo[] = [];
  const problems: string[] = [];
  for (const name of (await readdir(cache)).sort()) {
    const [, type, id] = repoName.exec(name) ?? [];
    const repo = id?.replaceAll("--", "/");
    if (!type || !repo?.includes(pattern)) continue;
    const path = join(cache, name);
    try {
      repos.push({ id: repo, type, path, ...(await contents(path, (problem) => problems.push(problem))) });
    } catch (error) {
      problems.push(`${path} cannot be read: ${(error as Error).message}`);
    }
  }
  return { repos, problems };
}

async function contents(
  path: string,
  onProblem: (problem: string) => void,
): Promise<Omit<CachedRepo, "id" | "type" | "path">> {
  const revisions = await namesIn(join(path, "snapshots"));
  const blobs = await namesIn(join(path, "blobs"));
  if (!revisions && !blobs) throw new Error("it has no snapshots");
  const found = new Map<string, Stats>();
  for (const revision of revisions ?? []) {
    const folder = join(path, "snapshots", revision);
    for (const file of await filesBelow(folder)) {
      const blob = await realpath(join(folder, file)).catch(() => null);
      const facts = blob === null ? null : (found.get(blob) ?? (await stat(blob)));
      if (facts?.isFile()) found.set(blob!, facts);
      else if (!facts) onProblem(`${join(folder, file)} is a link to nothing`);
    }
  }
  let incomplete = 0;
  for (const name of blobs ?? []) {
    if (name.endsWith(".incomplete"))
      incomplete += (await stat(join(path, "blobs", name)).catch(() => null))?.size ?? 0;
  }
  const facts = found.size > 0 ? [...found.values()] : [await stat(path)];
  return {
    size: [...found.values()].reduce((sum, { size }) => sum + size, 0),
    files: found.size,
    accessed: new Date(Math.max(...facts.map(({ atimeMs }) => atimeMs))),
    modified: new Date(Math.max(...facts.map(({ mtimeMs }) => mtimeMs))),
    revisions: revisions ?? [],
    incomplete,
  };
}

/** null where there is no such folder. */
async function namesIn(folder: string): Promise<string[] | null> {
  const entries = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return null;
    throw error;
  });
  return entries?.filter((name) => name !== ".DS_Store").sort() ?? null;
}

/** Removes a repo with all of its revisions. @throws UserError for a folder that is no repo of the cache */
export async function removeRepo({ path }: CachedRepo): Promise<void> {
  const folder = resolve(path);
  if (dirname(folder) !== resolve(hubCache()) || !repoName.test(basename(folder))) {
    throw new UserError(`${path} is not a repo of the cache`);
  }
  await rm(folder, { recursive: true });
  // Locks that Python's client leaves beside the repos.
  const locks = resolve(hubCache(), ".locks", basename(folder));
  if ((await readdir(locks).catch(() => null)) !== null) await rm(locks, { recursive: true });
}
