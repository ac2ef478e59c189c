/**
 * Threads ahead of those that need them. MLX, OpenBLAS and the tokenizer library hang or abort where a thread can't be
 * had, so a start asks for as many at once, wherever a limit makes that doubtful.
 */
import { dlopen, ptr } from "bun:ffi";
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { ExitCode, UserError } from "../errors";

/** Limits from here on are taken to suffice. */
const plenty = 4096;

function text(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

/** The least number of threads that a limit allows, of the user or of the control group. */
function threadLimit(): number {
  const [, user] = /^Max processes\s+(\d+)/m.exec(text("/proc/self/limits")) ?? [];
  const groups = ["/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max"].map(
    (path) => /^\d+/.exec(text(path))?.[0],
  );
  return Math.min(...[user, ...groups].map((limit) => Number(limit ?? Number.POSITIVE_INFINITY)));
}

/** Whether `count` threads can run beside those that there are: they are started, and ended. */
function canStart(count: number): boolean {
  const { symbols: libc } = dlopen("libc.so.6", {
    dlsym: { args: ["ptr", "ptr"], returns: "ptr" },
    pthread_create: { args: ["ptr", "ptr", "ptr", "ptr"], returns: "i32" },
    pthread_join: { args: ["u64", "ptr"], returns: "i32" },
    sem_init: { args: ["ptr", "i32", "u32"], returns: "i32" },
    sem_post: { args: ["ptr"], returns: "i32" },
  });
  // A semaphore of glibc takes 32 bytes.
  const semaphore = new Uint8Array(new ArrayBuffer(64));
  const threads = new BigUint64Array(new ArrayBuffer(8 * count));
  libc.sem_init(semaphore, 0, 0);
  const wait = libc.dlsym(null, Buffer.from("sem_wait\0"));
  let started = 0;
  for (; started < count; started++) {
    const error = libc.pthread_create(ptr(threads, 8 * started), null, wait, ptr(semaphore));
    if (error !== 0) break;
  }
  for (let i = 0; i < started; i++) libc.sem_post(semaphore);
  for (let i = 0; i < started; i++) libc.pthread_join(threads[i]!, null);
  return started === count;
}

/** @throws UserError where a limit leaves too few threads */
export function checkThreads(): void {
  if (process.platform !== "linux" || threadLimit() >= plenty) return;
  // MLX's four readers and its streams, Bun's own; and OpenBLAS and the tokenizers take one a core.
  const needed = 10 + 2 * availableParallelism();
  if (canStart(needed)) return;
  throw new UserError(`mlxlm needs ${needed} threads more than it may start`, {
    code: ExitCode.resources,
    hint: "Raise the limit of processes (ulimit -u, or a container's --pids-limit).",
  });
}
