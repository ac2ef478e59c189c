/** How doctor looks at the world. Tests look at another one. */
import { accessSync, constants, readdirSync, readFileSync, statfsSync, statSync } from "node:fs";
import { availableParallelism, cpus, release, totalmem } from "node:os";
import { dirname } from "node:path";
import { bundles } from "../../embedded-files";
import { nativeLibrary } from "../../mlx/native-files";

/** What the native library says. */
export interface Engine {
  /** Bytes that the process may still take. */
  available: number;
  /** Facts of each GPU that MLX can use. */
  gpus: Record<string, string | number>[];
}

/** What there is of a folder. */
export interface FolderFacts {
  exists: boolean;
  /** Files can be made there, or the folder can be made. */
  writable: boolean;
  /** Bytes; null where the system does not say. */
  free: number | null;
  /** Who else can read what is there, as `stat` says it. */
  mode: number | null;
}

export interface Probes {
  platform: string;
  arch: string;
  env: Readonly<Record<string, string | undefined>>;
  /** The id of the libraries inside the executable; null in a checkout. */
  build: string | null;
  bun: string;
  executable: string;
  /** Bytes. */
  memory: number;
  processor: string;
  /** Of the machine, and those that the process may use. */
  cores: { all: number; usable: number };
  kernel: string;
  /** null for a file that cannot be read. */
  read(path: string): string | null;
  folder(path: string): FolderFacts;
  /** Names in a folder; none where it cannot be read. */
  list(path: string): string[];
  /** What a program prints; null where there is none, it fails, or takes too long. */
  run(command: readonly string[]): string | null;
  /** The status of an answer, and after how many milliseconds. @throws where there is none in time */
  ask(url: string, headers?: Record<string, string>): Promise<{ status: number; milliseconds: number }>;
  /** Path of the native library. @throws UserError where there is none */
  nativeLibrary(): string;
  /** Loads it. @throws UserError where that fails */
  engine(): Promise<Engine>;
}

/** The longest that anything outside may take, in milliseconds. */
const patience = 3000;

export function realProbes(): Probes {
  return {
    platform: process.platform,
    arch: process.arch,
    env: process.env,
    build: bundles.native?.id ?? null,
    bun: Bun.version,
    executable: process.execPath,
    memory: totalmem(),
    processor: cpus()[0]?.model.trim() ?? "unknown",
    cores: { all: cpus().length, usable: availableParallelism() },
    kernel: release(),
    read(path) {
      try {
        return readFileSync(path, "utf8");
      } catch {
        return null;
      }
    },
    folder: folderFacts,
    list(path) {
      try {
        return readdirSync(path);
      } catch {
        return [];
      }
    },
    run(command) {
      try {
        const { exitCode, stdout } = Bun.spawnSync([...command], { stderr: "ignore", timeout: patience });
        return exitCode === 0 ? stdout.toString() : null;
      } catch {
        return null;
      }
    },
    async ask(url, headers) {
      const began = performance.now();
      const { status, body } = await fetch(url, {
        headers,
        method: headers ? "GET" : "HEAD",
        redirect: "manual",
        signal: AbortSignal.timeout(patience),
      });
      await body?.cancel();
      return { status, milliseconds: performance.now() - began };
    },
    nativeLibrary,
    async engine() {
      const mx = await import("../../mlx");
      const count = mx.deviceCount("gpu");
      return {
        available: mx.availableMemory(),
        gpus: Array.from({ length: count }, (_, index) => mx.deviceInfo("gpu", index)),
      };
    },
  };
}

function folderFacts(path: string): FolderFacts {
  const facts = statSync(path, { throwIfNoEntry: false });
  let at = path;
  while (!statSync(at, { throwIfNoEntry: false }) && dirname(at) !== at) at = dirname(at);
  let writable = true;
  try {
    accessSync(at, constants.W_OK);
  } catch {
    writable = false;
  }
  let free: number | null = null;
  try {
    const { bavail, bsize } = statfsSync(at);
    free = bavail * bsize;
  } catch {
    // Some systems do not say.
  }
  return { exists: facts !== undefined, writable, free, mode: facts?.mode ?? null };
}
