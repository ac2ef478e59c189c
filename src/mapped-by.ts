/** Which processes have a folder's files in their memory. */
import { readdirSync, readFileSync } from "node:fs";

/**
 * The processes that have files below a folder mapped. Without /proc, as on macOS, lsof is asked.
 * @returns null where it can't be known
 */
export function usersOf(folder: string): number[] | null {
  if (process.platform === "linux") {
    return readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name))
      .filter((pid) => mapsOf(pid).includes(`${folder}/`))
      .map(Number);
  }
  const lsof = Bun.which("lsof") ?? Bun.which("/usr/sbin/lsof");
  if (!lsof) return null;
  // It exits with 1 where nothing has a file open.
  const { stdout, exitCode } = Bun.spawnSync([lsof, "-t", "+D", folder], { stderr: "ignore" });
  if (exitCode > 1) return null;
  return stdout.toString().split("\n").filter(Boolean).map(Number);
}

function mapsOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/maps`, "utf8");
  } catch {
    return "";
  }
}
