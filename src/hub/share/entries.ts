/** What is shared: the entries of a folder, in the order in which they are made elsewhere. */
import { lstat, readdir, readlink, stat } from "node:fs/promises";
import { dirname, isAbsolute, join, normalize, posix } from "node:path";
import { z } from "zod";
import { ExitCode, UserError } from "../../errors";

const Entry = z.discriminatedUnion("type", [
  z.object({ type: z.literal("folder"), path: z.string() }),
  z.object({ type: z.literal("file"), path: z.string(), size: z.int().nonnegative() }),
  /** A link within the folder. */
  z.object({ type: z.literal("link"), path: z.string(), to: z.string().min(1) }),
]);

export type Entry = z.infer<typeof Entry>;

/** What stands for the thing itself where that is one file. */
export const itself = ".";

/** What other programs are in the middle of. */
const unfinished = /\.(incomplete|lock|partial)$/;

/** Whether a path stays within the folder that it begins in. */
const staysWithin = (path: string) => !isAbsolute(path) && !normalize(path).split(posix.sep).includes("..");

/**
 * The entries of a folder, by their paths in it; or the one of a file. Links stay links where they lead to something in the
 * folder; else what they lead to is taken.
 * @throws UserError for what is neither file nor folder
 */
export async function entriesOf(root: string): Promise<Entry[]> {
  const facts = await stat(root);
  if (!facts.isDirectory()) return [fileEntry(root, itself, facts)];
  const found: Entry[] = [];
  const walk = async (folder: string) => {
    for (const name of (await readdir(join(root, folder))).sort()) {
      if (unfinished.test(name)) continue;
      const path = posix.join(folder, name);
      const inside = await linkWithin(root, path);
      if (inside !== null) {
        found.push({ type: "link", path, to: inside });
        continue;
      }
      const one = await stat(join(root, path)).catch(() => null);
      // A link that leads nowhere.
      if (one === null) continue;
      if (one.isDirectory()) {
        found.push({ type: "folder", path });
        await walk(path);
      } else found.push(fileEntry(root, path, one));
    }
  };
  await walk("");
  const order = { folder: 0, file: 1, link: 2 };
  return found.sort((a, b) => order[a.type] - order[b.type]);
}

function fileEntry(root: string, path: string, facts: { isFile(): boolean; size: number }): Entry {
  if (facts.isFile()) return { type: "file", path, size: facts.size };
  throw new UserError(`${join(root, path)} is neither a file nor a folder`, {
    code: ExitCode.usage,
    hint: "Share files and folders only.",
  });
}

/** Where a link leads, if that is within the root and there; null for anything else. */
async function linkWithin(root: string, path: string): Promise<string | null> {
  const facts = await lstat(join(root, path));
  if (!facts.isSymbolicLink()) return null;
  const to = await readlink(join(root, path));
  const isThere = await stat(join(root, path)).catch(() => null);
  return isThere && !isAbsolute(to) && staysWithin(posix.join(dirname(path), to)) ? to : null;
}

/** What a rank sent as its entries. @throws UserError for entries that would leave the folder that they are made in */
export function checkedEntries(sent: unknown): Entry[] {
  const read = z.array(Entry).safeParse(sent);
  const isSafe = (entry: Entry) =>
    staysWithin(entry.path) &&
    entry.path !== "" &&
    (entry.path !== itself || entry.type === "file") &&
    (entry.type !== "link" || (!isAbsolute(entry.to) && staysWithin(posix.join(dirname(entry.path), entry.to))));
  if (read.success && read.data.every(isSafe) && areApart(read.data)) return read.data;
  throw new UserError("the list of files that was sent cannot be used: it leads out of its folder, or is no list", {
    hint: "Run the same version of mlxlm on all hosts.",
  });
}

/** Whether each path is there once, and none leads through a link. */
function areApart(entries: readonly Entry[]): boolean {
  const others = new Set(entries.flatMap(({ type, path }) => (type === "folder" ? [] : [path])));
  const above = (path: string): string[] => (path === "." ? [] : [path, ...above(dirname(path))]);
  const isUnique = new Set(entries.map(({ path }) => path)).size === entries.length;
  return isUnique && entries.every(({ path }) => above(dirname(path)).every((folder) => !others.has(folder)));
}
