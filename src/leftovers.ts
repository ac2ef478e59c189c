/** Names for what is being written, which tell whose it is; and removing what a killed process left. */
import { createHash, randomUUID } from "node:crypto";
import { lstat, readdir, rm } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";

const machine = createHash("sha256").update(hostname()).digest("hex").slice(0, 8);

/** Eight digits at random, the machine's mark, the process. */
const ownName = /(?:^|[.-])[0-9a-f]{8}-([0-9a-f]{8})-(\d+)(?=\.|$)/;

/** A part of a name that only this process has. */
export const uniqueMark = () => `${randomUUID().slice(0, 8)}-${machine}-${process.pid}`;

/**
 * Removes from a folder what processes left that were killed: of names that pass and that `uniqueMark` is in, of this
 * user and this machine.
 */
export async function removeLeftovers(folder: string, passes: (name: string) => boolean): Promise<void> {
  for (const name of await readdir(folder).catch(() => [])) {
    const [, host, pid] = ownName.exec(name) ?? [];
    if (host !== machine || !passes(name) || isRunning(Number(pid))) continue;
    const path = join(folder, name);
    const facts = await lstat(path).catch(() => null);
    if (facts && facts.uid === process.getuid?.()) await rm(path, { recursive: true, force: true }).catch(() => {});
  }
}

/** Whether this machine has such a process. */
export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
