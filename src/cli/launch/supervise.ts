/** Ranks as processes: their output, their signals, and the end of all with the end of one. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { takeInterrupts } from "../interrupt";
import { isHere } from "./hosts";
import type { PlannedRank } from "./plan";
import { rankScript, sshWords } from "./ssh";

export interface SuperviseOptions {
  /** What a rank runs. */
  commandOf: (rank: PlannedRank) => readonly string[];
  cwd: string;
  /** Writes a line of a rank; the first rank here writes by itself. */
  line: (stream: "stdout" | "stderr", text: string) => void;
  onStart?: (rank: PlannedRank, pid: number) => void;
  /** Ends the ranks, as Ctrl-C does. */
  signal?: AbortSignal;
  /** Told of what a user should know. */
  note: (line: string) => void;
}

const interrupted = 130;

/** How long ranks have to end by themselves, once one is lost. */
const grace = 5000;

interface Running {
  rank: PlannedRank;
  process: Bun.Subprocess;
  /** The last line that it wrote to stderr, of those that are not indented. */
  lastWords: string;
}

/**
 * Runs the ranks to their end. Where one fails, the others are ended; after an interrupt they end by themselves.
 * @returns the exit code of the first that failed; 0 where all went well
 */
export async function supervise(ranks: readonly PlannedRank[], options: SuperviseOptions): Promise<number> {
  const { note } = options;
  const folder = mkdtempSync(join(tmpdir(), "mlxlm-launch-"));
  const running = ranks.map((rank) => start(rank, folder, options));
  for (const { rank, process } of running) options.onStart?.(rank, process.pid);
  const pumps = running.flatMap((one) => pumpsOf(one, options));
  const [first] = running;
  let failed: { code: number } | null = null;
  let wasInterrupted = false;
  let timer: Timer | undefined;

  const endAll = () => {
    for (const { process } of running) if (process.exitCode === null) process.kill("SIGTERM");
    timer ??= setTimeout(() => killAll(), grace);
  };
  /** The first rank tells the others, between two steps; a terminal tells it itself. */
  const interrupt = () => {
    if (!first || (isForeground(first.rank) && process.stdin.isTTY)) return;
    if (wasInterrupted) endAll();
    else first.process.kill("SIGINT");
    wasInterrupted = true;
  };
  const release = takeInterrupts(interrupt);
  options.signal?.addEventListener("abort", interrupt);
  // Where this process is ended at once, none of them goes on alone.
  const killAll = () => {
    for (const { process } of running) if (process.exitCode === null) process.kill("SIGKILL");
  };
  process.on("exit", killAll);

  try {
    await Promise.all(
      running.map(async (one) => {
        await one.process.exited;
        const code = codeOf(one.process);
        if (!failed) {
          if (code === 0) return;
          // All ranks end of one interrupt. The first of them saves what all have, which may take longer.
          if (code === interrupted && one !== first) return;
          // Whoever reads has enough, and the first rank has ended well: the others miss it.
          if (first?.process.exitCode === 0) return;
          failed = { code };
          if (code !== interrupted) note(describeEnd(one, code));
        }
        endAll();
      }),
    );
    await Promise.all(pumps);
  } finally {
    clearTimeout(timer);
    release();
    options.signal?.removeEventListener("abort", interrupt);
    process.off("exit", killAll);
    rmSync(folder, { recursive: true, force: true });
  }
  return (failed as { code: number } | null)?.code ?? 0;
}

/** The first rank, on this machine, has this terminal. */
const isForeground = ({ rank, host }: PlannedRank) => rank === 0 && isHere(host);

function start(rank: PlannedRank, folder: string, { commandOf, cwd }: SuperviseOptions): Running {
  const command = commandOf(rank);
  if (!isHere(rank.host)) {
    const process_ = Bun.spawn(sshWords(rank.host.ssh, rankScript(rank, command, cwd)), {
      stdin: rank.rank === 0 ? "inherit" : "pipe",
      stdout: rank.rank === 0 ? "inherit" : "pipe",
      stderr: "pipe",
      // Ctrl-C is passed on; ssh itself must live to bring what the rank says.
      detached: true,
    });
    return { rank, process: process_, lastWords: "" };
  }
  const files = Object.entries(rank.files).map(([name, text]) => {
    const path = join(folder, `${name}-${rank.rank}.json`);
    writeFileSync(path, text);
    return [name, path];
  });
  const first = isForeground(rank);
  const process_ = Bun.spawn([...command], {
    cwd,
    env: { ...process.env, ...rank.env, ...Object.fromEntries(files) },
    stdin: first ? "inherit" : "ignore",
    stdout: first ? "inherit" : "pipe",
    stderr: first ? "inherit" : "pipe",
    detached: !(first && process.stdin.isTTY),
  });
  return { rank, process: process_, lastWords: "" };
}

/** What carries a rank's lines to this process's streams. */
function pumpsOf(one: Running, { line }: SuperviseOptions): Promise<void>[] {
  return (["stdout", "stderr"] as const).flatMap((stream) => {
    const from = one.process[stream];
    if (!(from instanceof ReadableStream)) return [];
    return pump(from, (text) => {
      // An error's hint stands below it.
      if (stream === "stderr" && /^\S/.test(text)) one.lastWords = text.trim();
      line(stream, `[${one.rank.rank}] ${text}`);
    });
  });
}

/** Calls `take` for each line, the last without an end too. */
async function pump(from: ReadableStream<Uint8Array>, take: (line: string) => void): Promise<void> {
  let rest = "";
  for await (const text of from.pipeThrough(new TextDecoderStream() as never) as unknown as AsyncIterable<string>) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    for (const line of lines) take(line);
  }
  if (rest !== "") take(rest);
}

function codeOf({ exitCode, signalCode }: Bun.Subprocess): number {
  if (signalCode !== null) return 128 + (constants.signals[signalCode as NodeJS.Signals] ?? 0);
  return exitCode ?? 1;
}

function describeEnd({ rank: { rank, host }, process, lastWords }: Running, code: number): string {
  const how = process.signalCode === null ? `ended with code ${code}` : `was ended by ${process.signalCode}`;
  const words = lastWords === "" ? "" : `: ${lastWords.replace(/^mlxlm: /, "")}`;
  return `rank ${rank} (${host.ssh}) ${how}${words}. The other ranks are ended`;
}
