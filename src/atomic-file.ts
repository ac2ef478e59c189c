/** Files that are whole or not there: written beside their place, flushed to the disk, renamed. */
import { open, readdir, rename, rm } from "node:fs/promises";
import { dirname, extname, join } from "node:path";
import { ExitCode, UserError } from "./errors";
import { removeLeftovers, uniqueMark } from "./leftovers";
import { systemError } from "./system-errors";

/** Names of files that are being written. */
const unfinished = /^\.[0-9a-f]{8}-[0-9a-f]{8}-\d+(?:\.|$)/;

/** Folders in which this process has removed what killed ones left. */
const tidied = new Set<string>();

/**
 * Runs `write` with a name beside `path` and of its ending; what it wrote then takes the place of whatever is at `path`.
 * @param mode of the new file, which is made ahead of `write`
 * @throws UserError where there is no such folder, no room or no permission; what was there stays
 */
export async function replaceFile(
  path: string,
  write: (temporary: string) => void | Promise<void>,
  { mode = 0o666 }: { mode?: number } = {},
): Promise<void> {
  const folder = dirname(path);
  if (!tidied.has(folder)) {
    tidied.add(folder);
    await removeLeftovers(folder, (name) => unfinished.test(name));
  }
  const temporary = join(folder, `.${uniqueMark()}${extname(path)}`);
  try {
    await (await open(temporary, "wx", mode)).close();
    await write(temporary);
    const file = await open(temporary, "r+");
    try {
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {});
    throw explained(path, error);
  }
}

/** Removes from a folder what `replaceFile` had begun when the process was killed. No other one may be writing there. */
export async function removeUnfinished(folder: string): Promise<void> {
  const names = await readdir(folder).catch(() => []);
  for (const name of names.filter((one) => unfinished.test(one))) await rm(join(folder, name), { force: true });
}

function explained(path: string, error: unknown): unknown {
  if (error instanceof UserError) return error;
  if ((error as NodeJS.ErrnoException).code === "ENOENT") {
    return new UserError(`there is no folder ${dirname(path)}`, {
      code: ExitCode.notFound,
      hint: "Make it, or take another place.",
      cause: error,
    });
  }
  return systemError(error, `${path} cannot be written`) ?? unknown(path, error);
}

const unknown = (path: string, error: unknown) =>
  new UserError(`${path} cannot be written: ${error instanceof Error ? error.message : error}`, {
    hint: "Take another place.",
    cause: error,
  });
