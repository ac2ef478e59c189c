/** Where a rank puts what is shared: into a folder beside its place first, which then takes the place. */
import { createHash } from "node:crypto";
import { cp, lstat, mkdir, readdir, readlink, rename, rm, stat, statfs, symlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { ExitCode, UserError } from "../../errors";
import { removeLeftovers, uniqueMark } from "../../leftovers";
import { hashOfFile } from "./content";
import { type Entry, itself } from "./entries";

const unfinished = /^\.mlxlm-share-/;

/** Which of the files a place lacks, by their number; null where there is nothing yet. */
export async function lacking(place: string, entries: readonly Entry[]): Promise<Set<number> | null> {
  if (!(await stat(place).catch(() => null))) return null;
  const result = new Set<number>();
  for (const [i, entry] of entries.entries()) {
    if (entry.type !== "file") continue;
    const facts = await stat(join(place, entry.path)).catch(() => null);
    if (facts?.size !== entry.size) result.add(i);
  }
  return result;
}

/** The hashes of the files of a place, by path. */
export async function hashes(place: string, entries: readonly Entry[]): Promise<Record<string, string>> {
  const result: Record<string, string> = {};
  for (const { type, path } of entries) {
    if (type === "file") result[path] = await hashOfFile(join(place, path));
  }
  return result;
}

/** What is being received for a place. */
export class Arrival {
  /** Where it lies until it is whole. */
  readonly folder: string;

  /** @param tmpdir beside the place where undefined */
  constructor(
    readonly place: string,
    tmpdir: string | undefined,
  ) {
    this.folder = join(tmpdir ?? dirname(place), `.mlxlm-share-${uniqueMark()}`);
  }

  /** @throws UserError where there is no room @throws Error of the system where the folders cannot be made */
  async begin(entries: readonly Entry[], bytes: number): Promise<void> {
    const parent = dirname(this.folder);
    await mkdir(dirname(this.place), { recursive: true });
    await mkdir(parent, { recursive: true });
    await removeLeftovers(parent, (name) => unfinished.test(name));
    const { bavail, bsize } = await statfs(parent);
    if (bavail * bsize < bytes) {
      throw new UserError(`${parent} has ${inGb(bavail * bsize)} GB left, and ${inGb(bytes)} GB are to come`, {
        code: ExitCode.resources,
        hint: "Make room there, or name another disk: --dst FOLDER, and --tmpdir FOLDER on the same one.",
      });
    }
    await mkdir(this.folder);
    for (const { type, path } of entries)
      if (type === "folder") await mkdir(join(this.folder, path), { recursive: true });
  }

  /** The file that an entry is received as. */
  pathOf({ path }: Entry): string {
    return join(this.folder, path === itself ? "file" : path);
  }

  /** What has arrived takes its place, or, where something is there, joins it. */
  async end(entries: readonly Entry[]): Promise<void> {
    for (const entry of entries) if (entry.type === "link") await symlink(entry.to, join(this.folder, entry.path));
    const single = entries.length === 1 && entries[0]!.path === itself;
    if (single) await moved(this.pathOf(entries[0]!), this.place);
    else if (await stat(this.place).catch(() => null)) await this.#join("");
    else await moved(this.folder, this.place);
    await this.drop();
  }

  async drop(): Promise<void> {
    await rm(this.folder, { recursive: true, force: true }).catch(() => {});
  }

  /** Files first, links last: nobody finds a link that leads nowhere. */
  async #join(path: string): Promise<void> {
    const all = await readdir(join(this.folder, path), { withFileTypes: true });
    const late = (name: string) => (name === "snapshots" ? 1 : name === "refs" ? 2 : 0);
    for (const one of all.sort((a, b) => late(a.name) - late(b.name))) {
      const [from, to] = [join(this.folder, path, one.name), join(this.place, path, one.name)];
      if (one.isDirectory()) {
        await mkdir(to, { recursive: true });
        await this.#join(join(path, one.name));
      } else if (!one.isSymbolicLink() || !(await isSameLink(from, to))) await moved(from, to);
    }
  }
}

async function isSameLink(a: string, b: string): Promise<boolean> {
  const facts = await lstat(b).catch(() => null);
  return facts?.isSymbolicLink() === true && (await readlink(a)) === (await readlink(b));
}

/** Renames, also from one disk to another: what is at `to` is whole all the time. */
async function moved(from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EXDEV") throw error;
    const beside = join(dirname(to), `.mlxlm-share-${uniqueMark()}`);
    try {
      await cp(from, beside, { recursive: true, verbatimSymlinks: true });
      await rename(beside, to);
    } finally {
      await rm(beside, { recursive: true, force: true });
    }
  }
}

const inGb = (bytes: number) => (bytes / 1e9).toFixed(1);

/** The same for two ranks that would write into one folder of one disk. */
export async function markOf(place: string, machine: string): Promise<string> {
  let parent = dirname(place);
  let facts = await stat(parent).catch(() => null);
  while (!facts && parent !== dirname(parent)) {
    parent = dirname(parent);
    facts = await stat(parent).catch(() => null);
  }
  const text = `${machine} ${facts?.dev} ${facts?.ino} ${place}`;
  return createHash("sha256").update(text).digest("hex");
}
