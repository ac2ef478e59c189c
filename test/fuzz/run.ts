/**
 * Structured fuzzing of what others' files can hold: `bun run fuzz [KIND…] [--count 1000] [--seed 1]`, a minute for all
 * kinds. Each input must load and run, or end in an error for a user: no signal, no internal error, no words of MLX's own,
 * within 10 s and 1 GB. A seed that fails is named; with --seed N --count 1 it is run alone.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";

export interface Line {
  seed: number;
  outcome: "sound" | "refused" | "fault";
  message?: string;
  fault?: string;
  stack?: string;
  ms?: number;
  rss?: number;
}

export interface Fault {
  seed: number;
  problem: string;
}

const limits = { ms: 10_000, bytes: 2 ** 30 };

export const kinds = ["gguf", "checkpoint"] as const;

/** Kinds that have scripts of their own, which take a count and a seed. */
const scripts = ["datasets", "grammars", "hub-answers", "prompt-caches", "templates", "tokenizers"] as const;

export interface Tally {
  sound: number;
  refused: number;
  faults: Fault[];
}

/** Runs the seeds, in a process that is started anew when one ends it. */
export async function fuzz(
  kind: (typeof kinds)[number],
  first: number,
  last: number,
  worker = join(import.meta.dir, "worker.ts"),
): Promise<Tally> {
  const tally: Tally = { sound: 0, refused: 0, faults: [] };
  for (let next = first; next <= last; ) {
    const child = Bun.spawn([process.execPath, worker, kind, `${next}`, `${last}`], {
      stdout: "pipe",
      stderr: "pipe",
    });
    let isHanging = false;
    const hang = () => {
      isHanging = true;
      child.kill(9);
    };
    let timer = setTimeout(hang, limits.ms + 5000);
    const stderr = new Response(child.stderr).text();
    for await (const text of linesOf(child.stdout)) {
      const line = JSON.parse(text) as Line;
      clearTimeout(timer);
      timer = setTimeout(hang, limits.ms);
      next = line.seed + 1;
      if (line.outcome === "fault") tally.faults.push({ seed: line.seed, problem: line.stack ?? line.fault! });
      else tally[line.outcome]++;
      if (line.rss! > limits.bytes) {
        tally.faults.push({ seed: line.seed, problem: `${(line.rss! / 2 ** 20).toFixed(0)} MB` });
        child.kill(9);
      }
    }
    clearTimeout(timer);
    await child.exited;
    if (next > last) break;
    const ended = child.signalCode ?? `exit ${child.exitCode}`;
    const tail = (await stderr).trim().split("\n").slice(-3).join(" | ");
    if (!tally.faults.some(({ seed }) => seed === next - 1 && child.signalCode === "SIGKILL")) {
      tally.faults.push({ seed: next, problem: isHanging ? `more than ${limits.ms} ms` : `${ended}: ${tail}` });
      next += 1;
    }
  }
  return tally;
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop()!;
    yield* lines;
  }
}

if (import.meta.main) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { count: { type: "string", default: "1000" }, seed: { type: "string", default: "1" } },
  });
  const known: readonly string[] = [...kinds, ...scripts];
  const unknown = positionals.find((one) => !known.includes(one));
  if (unknown !== undefined) throw new Error(`there is no kind ${unknown}, only ${known.join(", ")}`);
  const isWanted = (kind: string) => positionals.length === 0 || positionals.includes(kind);
  const first = Number(values.seed);
  for (const kind of kinds.filter(isWanted)) {
    const began = performance.now();
    const { sound, refused, faults } = await fuzz(kind, first, first + Number(values.count) - 1);
    const seconds = ((performance.now() - began) / 1000).toFixed(0);
    console.log(`${kind}: ${sound} ran, ${refused} refused, ${faults.length} faults, ${seconds} s`);
    for (const { seed, problem } of faults) console.log(`  seed ${seed}: ${problem}`);
    if (faults.length > 0) process.exitCode = 1;
  }
  for (const kind of scripts.filter(isWanted)) {
    const child = Bun.spawn([process.execPath, join(import.meta.dir, `${kind}.ts`), values.count, values.seed], {
      stdout: "pipe",
      stderr: "pipe",
    });
    const [said, problem] = await Promise.all([child.stdout.text(), child.stderr.text()]);
    console.log(`${kind}: ${said.trim()}`);
    if ((await child.exited) === 0) continue;
    console.log(`  ${problem.trim().split("\n").join("\n  ")}`);
    process.exitCode = 1;
  }
}
