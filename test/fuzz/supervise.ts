/** Runs a fuzzer in processes of its own: a crash, a hang or too much memory is the input's failure, not the runner's. */

import { existsSync, readFileSync } from "node:fs";

/** Milliseconds that one input may take, and bytes of the whole process. */
const limits = { time: 10_000, memory: 1e9 };

/**
 * Bytes that this process took at most. What the system tells a parent of its child begins with the parent's own memory, of
 * which the child is a copy at first.
 */
export function peakMemory(): number {
  const status = existsSync("/proc/self/status") ? readFileSync("/proc/self/status", "utf8") : "";
  const kilobytes = /^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1];
  return kilobytes ? Number(kilobytes) * 1024 : process.memoryUsage.rss();
}

export interface Outcome {
  /** Inputs that were taken, and that were refused with a UserError. */
  sound: number;
  refused: number;
  /** Bytes that the process took at most. */
  memory: number;
}

/** Runs one input by its seed. @throws Error for anything that is no UserError */
export type RunInput = (seed: number) => Promise<"sound" | "refused">;

/**
 * Runs `count` inputs from `seed` on in a child: the script at `path`, which calls `fuzzMain`.
 * @throws Error that names the seed of an input that crashes, hangs, or ends in anything but an answer or words of ours
 */
export async function supervise(path: string, count: number, seed: number): Promise<Outcome> {
  let [next, last, outcome] = [seed, Date.now(), { sound: 0, refused: 0, memory: 0 }];
  const child = Bun.spawn([process.execPath, path, "--child", `${count}`, `${seed}`], {
    ipc(message) {
      last = Date.now();
      if (typeof message === "number") next = message + 1;
      else outcome = message as typeof outcome;
    },
    stdout: "ignore",
    stderr: "pipe",
  });
  const watch = setInterval(() => Date.now() - last > limits.time && child.kill("SIGKILL"), 500);
  const said = await new Response(child.stderr).text();
  await child.exited;
  clearInterval(watch);
  const { memory } = outcome;
  const ended = child.signalCode ?? (child.exitCode === 0 ? null : `exit code ${child.exitCode}`);
  if (ended) throw new Error(`the input of seed ${next} ended in ${ended}: ${said.slice(0, 2000)}`);
  if (outcome.sound + outcome.refused !== count) throw new Error(`the child stopped before seed ${next}`);
  if (memory > limits.memory) throw new Error(`${Math.round(memory / 1e6)} MB of memory were taken`);
  return outcome;
}

/** What a fuzzer's script does: `COUNT SEED` supervises a child, `--child COUNT SEED` is one. */
export async function fuzzMain(path: string, run: RunInput): Promise<void> {
  const [count = 3000, seed = 1] = process.argv
    .slice(2)
    .filter((word) => word !== "--child")
    .map(Number);
  if (!process.argv.includes("--child")) {
    const began = performance.now();
    const { sound, refused, memory } = await supervise(path, count, seed);
    const seconds = ((performance.now() - began) / 1000).toFixed(0);
    console.log(
      `${count} inputs in ${seconds} s: ${refused} refused, ${sound} taken, ${Math.round(memory / 1e6)} MB at most`,
    );
    return;
  }
  const outcome = { sound: 0, refused: 0, memory: 0 };
  for (let at = seed; at < seed + count; at++) {
    outcome[await run(at)]++;
    process.send?.(at);
  }
  process.send?.({ ...outcome, memory: peakMemory() });
  process.disconnect?.();
}
