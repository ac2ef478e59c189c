/** Runs a script as the ranks of a group on this machine. */
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePorts } from "../../src/cli/launch/ports";

export interface Rank {
  process: Bun.Subprocess<"ignore" | Blob, "pipe", "pipe">;
  /** Settles at the process's end. */
  ended: Promise<RankEnd>;
}

export interface RankEnd {
  code: number | null;
  signal: string | null;
  stdout: string;
  stderr: string;
}

export interface RanksOptions {
  backend?: "tcp" | "ring";
  env?: Record<string, string>;
  /** What each rank has besides, by rank. */
  ownEnv?: readonly Record<string, string>[];
  args?: readonly string[];
  /** What the first rank reads. */
  stdin?: string;
}

/** @param script what each rank runs, a path from here */
export function startRanks(
  script: string,
  count: number,
  { backend = "tcp", env, ownEnv, args = [], stdin }: RanksOptions = {},
): Rank[] {
  const hosts = join(mkdtempSync(join(tmpdir(), "mlxlm-ranks-")), "hosts.json");
  writeFileSync(hosts, JSON.stringify(freePorts(count).map((port) => [`127.0.0.1:${port}`])));
  return Array.from({ length: count }, (_, rank) => {
    const group = { MLX_RANK: `${rank}`, MLX_HOSTFILE: hosts, MLXLM_DISTRIBUTED: backend, MLXLM_GROUP_KEY: "test" };
    const process_ = Bun.spawn([process.execPath, join(import.meta.dir, script), ...args], {
      env: { ...process.env, MLXLM_THREADS: "1", ...group, ...env, ...ownEnv?.[rank] },
      stdin: rank === 0 && stdin !== undefined ? new Blob([stdin]) : "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    return { process: process_, ended: endOf(process_) };
  });
}

async function endOf(process_: Rank["process"]): Promise<RankEnd> {
  const [stdout, stderr] = await Promise.all([
    new Response(process_.stdout).text(),
    new Response(process_.stderr).text(),
    process_.exited,
  ]);
  return { code: process_.exitCode, signal: process_.signalCode as string | null, stdout, stderr };
}

/** What the ranks print, as JSON. @throws Error with a rank's last words where one fails */
export async function runRanks<T>(script: string, count: number, options?: RanksOptions): Promise<T[]> {
  const ends = await Promise.all(startRanks(script, count, options).map(({ ended }) => ended));
  return ends.map(({ code, stdout, stderr }, rank) => {
    if (code !== 0) throw new Error(`rank ${rank} ended with ${code}:\n${stderr}\n${stdout}`);
    return JSON.parse(stdout) as T;
  });
}
