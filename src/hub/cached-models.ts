/** The repos in the shared Hugging Face cache: what is there, and removing them. */
import { readdir, rm, stat } from "node:fs/promises";
import { basename, dirname, resolve } from "node:path";
import { scanCacheDir } from "@huggingface/hub";
import { ExitCode, UserError } from "../errors";
import { hubCache } from "./environment";

export interface CachedRepo {
  id: string;
  /** model, dataset, space */
  type: string;
  /** Bytes on disk. */
  size: number;
  files: number;
  accessed: Date;
  modified: Date;
  path: string;
  /** Commits that there are snapshots of. */
  revisions: string[];
}

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
  const { repos, warnings } = await scanCacheDir(cache);
  const found = repos.map((repo) => ({
    id: repo.id.name,
    type: repo.id.type,
    size: repo.size,
    files: repo.filesCount,
    accessed: repo.lastAccessedAt,
    modified: repo.lastModifiedAt,
    path: repo.path,
    revisions: repo.revisions.map(({ commitOid }) => commitOid).sort(),
  }));
  return {
    repos: found.filter(({ id }) => id.includes(pattern)).sort((a, b) => (a.path < b.path ? -1 : 1)),
    problems: warnings.map(({ message }) => message),
  };
}

/** Removes a repo with all of its revisions. @throws UserError for a folder that is no repo of the cache */
export async function removeRepo({ path }: CachedRepo): Promise<void> {
  const folder = resolve(path);
  if (dirname(folder) !== resolve(hubCache()) || !/^[a-z]+s--/.test(basename(folder))) {
    throw new UserError(`${path} is not a repo of the cache`);
  }
  await rm(folder, { recursive: true });
  // Locks that Python's client leaves beside the repos.
  const locks = resolve(hubCache(), ".locks", basename(folder));
  if ((await readdir(locks).catch(() => null)) !== null) await rm(locks, { recursive: true });
}
