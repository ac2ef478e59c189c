/** Ranks as processes: their output, their signals, and the end of all with the end of one. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { takeInterrupts } from "../interrupt";
import { isHere } from "./hosts";
import { ErrorLines, isRepeated, missedRank, toldRank } from "./last-words";
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
const terminated = 143;

/** How long ranks have to end by themselves, once one is lost. */
const grace = 5000;

/** How long a rank that others miss, or that says the same as another, has to end. */
const causePatience = 1000;

/** How long it takes ssh to find that a host is gone, and some more. */
const sshPatience = 10_000;

/** After how long without an end a user is told how to have one at once. */
const interruptPatience = 10_000;

interface Running {
  rank: PlannedRank;
  process: Bun.Subprocess;
  errors: ErrorLines;
  /** Settles when all that it wrote is read. */
  isRead: Promise<unknown>;
  /** Where it leaves its error, if it is on this machine. */
  wordsFile: string;
}

/**
 * Runs the ranks to their end. Where one fails, the others are ended; after an interrupt they end by themselves.
 * @returns the exit code of the one to blame; 0 where all went well
 */
export async function supervise(ranks: readonly PlannedRank[], options: SuperviseOptions): Promise<number> {
  const { note } = options;
  const folder = mkdtempSync(join(tmpdir(), "mlxlm-launch-"));
  const running = ranks.map((rank) => start(rank, folder, options));
  for (const { rank, process } of running) options.onStart?.(rank, process.pid);
  const [first] = running as [Running, ...Running[]];
  let cause: Promise<Running> | null = null;
  let wasInterrupted = false;
  let timer: Timer | undefined;
  let reminder: Timer | undefined;

  const endAll = () => {
    for (const { process } of running) if (process.exitCode === null) process.kill("SIGTERM");
    timer ??= setTimeout(() => killAll(), grace);
  };
  /** The first rank tells the others, between two steps. */
  const interrupt = () => {
    if (wasInterrupted) endAll();
    else first.process.kill("SIGINT");
    wasInterrupted = true;
    reminder ??= setTimeout(
      () => note("the ranks have not ended yet. A second interrupt ends them at once"),
      interruptPatience,
    );
  };
  // Of Ctrl-C a terminal tells it.
  const release = takeInterrupts(() => {
    if (!isForeground(first.rank) || !process.stdin.isTTY) interrupt();
  });
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
        if (!cause) {
          if (code === 0) return;
          // All ranks end of one interrupt. The first of them saves what all have, which may take longer.
          if (code === interrupted && one !== first) return;
          // Whoever reads has enough, and the first rank has ended well: the others miss it.
          if (first.process.exitCode === 0) return;
          cause = causeOf(one, running);
          void cause.then((cause) => {
            endAll();
            tell(cause, first, options);
          });
        }
      }),
    );
    const failed = await (cause as Promise<Running> | null);
    await Promise.all(running.map(({ isRead }) => isRead));
    for (const one of running) showRest(one, failed ? [failed, first] : [first]);
    return failed ? codeOf(failed.process) : 0;
  } finally {
    killAll();
    clearTimeout(timer);
    clearTimeout(reminder);
    release();
    options.signal?.removeEventListener("abort", interrupt);
    process.off("exit", killAll);
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The first rank, on this machine, has this terminal. */
const isForeground = ({ rank, host }: PlannedRank) => rank === 0 && isHere(host);

/** Waits for it, but no longer than so many milliseconds. */
const atMost = (milliseconds: number, awaited: Promise<unknown>) => Promise.race([awaited, Bun.sleep(milliseconds)]);

/** The rank that is to blame where `one` has failed: it may miss another, which may miss a third, or say what the first one says too. */
async function causeOf(one: Running, running: readonly Running[], blamed: readonly Running[] = []): Promise<Running> {
  await atMost(causePatience, one.isRead);
  const words = lastWords(one);
  const missed = missedRank(words) ?? toldRank(words);
  const other = running[missed ?? 0];
  if (words === "" || !other || other === one || blamed.includes(other)) return one;
  // A host that is gone is noticed by ssh after some seconds.
  const isFar = missed !== undefined && !isHere(other.rank.host);
  await atMost(isFar ? sshPatience : causePatience, other.process.exited);
  const hasFailed = other.process.exitCode !== null || other.process.signalCode !== null;
  const isEnded = [0, interrupted, terminated].includes(codeOf(other.process));
  if (!hasFailed || isEnded) return one;
  if (missed !== undefined) return await causeOf(other, running, [...blamed, one]);
  await atMost(causePatience, other.isRead);
  return isRepeated(words, [lastWords(other)]) ? other : one;
}

/** Tells the user of the rank that failed, unless it has done so itself, or the first rank has. */
function tell(cause: Running, first: Running, { note }: SuperviseOptions): void {
  if (codeOf(cause.process) === interrupted) return;
  if (cause !== first && isForeground(first.rank) && isRepeated(lastWords(cause), [lastWords(first)])) return;
  const isTold = cause.errors.show() || (isForeground(cause.rank) && lastWords(cause) !== "");
  if (isTold && cause.rank.rank === 0) return;
  note(describeEnd(cause, isTold ? "" : lastWords(cause)));
}

/** What a rank said at its end, unless others have said it, or it was only told to end. */
function showRest(one: Running, others: readonly Running[]): void {
  const words = codeOf(one.process) === interrupted ? "" : lastWords(one);
  const said = others.filter((other) => other !== one).map(lastWords);
  if (words === "" || missedRank(words) !== undefined || isRepeated(words, said)) one.errors.forget();
  else one.errors.show();
}

/** Empty where a signal ended it: the last line is none of its own then. */
function lastWords({ errors, wordsFile, process }: Running): string {
  if (process.signalCode !== null) return "";
  return existsSync(wordsFile) ? readFileSync(wordsFile, "utf8") : errors.last;
}

function start(rank: PlannedRank, folder: string, options: SuperviseOptions): Running {
  const wordsFile = join(folder, `last-words-${rank.rank}`);
  const process = spawn(rank, folder, { ...options, wordsFile });
  const write = (stream: "stdout" | "stderr", text: string) => options.line(stream, `[${rank.rank}] ${text}`);
  const errors = new ErrorLines(
    (text) => write("stderr", text),
    () => process.exitCode === null && process.signalCode === null,
  );
  const isRead = Promise.all([
    pump(process.stdout, (text) => write("stdout", text)),
    pump(process.stderr, (text) => errors.take(text)),
  ]);
  return { rank, process, errors, isRead, wordsFile };
}

function spawn(
  rank: PlannedRank,
  folder: string,
  { commandOf, cwd, wordsFile }: SuperviseOptions & { wordsFile: string },
): Bun.Subprocess {
  const command = commandOf(rank);
  if (!isHere(rank.host)) {
    return Bun.spawn(sshWords(rank.host.ssh, rankScript(rank, command, cwd)), {
      stdin: rank.rank === 0 ? "inherit" : "pipe",
      stdout: rank.rank === 0 ? "inherit" : "pipe",
      stderr: "pipe",
      // Ctrl-C is passed on; ssh itself must live to bring what the rank says.
      detached: true,
    });
  }
  const files = Object.entries(rank.files).map(([name, text]) => {
    const path = join(folder, `${name}-${rank.rank}.json`);
    writeFileSync(path, text);
    return [name, path];
  });
  const first = isForeground(rank);
  return Bun.spawn([...command], {
    cwd,
    env: { ...process.env, ...rank.env, ...Object.fromEntries(files), MLXLM_LAST_WORDS: wordsFile },
    stdin: first ? "inherit" : "ignore",
    stdout: first ? "inherit" : "pipe",
    stderr: first ? "inherit" : "pipe",
    detached: !(first && process.stdin.isTTY),
  });
}

/** Calls `take` for each line, the last without an end too. */
async function pump(from: Bun.Subprocess["stdout"], take: (line: string) => void): Promise<void> {
  if (!(from instanceof ReadableStream)) return;
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

function describeEnd({ rank: { rank, host }, process }: Running, words: string): string {
  const how =
    process.signalCode === null ? `ended with code ${process.exitCode}` : `was ended by ${process.signalCode}`;
  return `rank ${rank} (${host.ssh}) ${how}${words && `: ${words}`}. The other ranks are ended`;
}
