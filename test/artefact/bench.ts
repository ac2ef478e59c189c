/** What a proof on the executable gets to work with. */
import { mkdirSync, mkdtempSync, readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface Ran {
  out: string;
  problems: string;
  code: number | null;
}

export interface RunOptions {
  /** Beside PATH, HF_HUB_OFFLINE and TMPDIR. HOME is the bench's own unless it is null. */
  env?: Record<string, string>;
  home?: string | null;
  cwd?: string;
  /** Another path of the executable. */
  executable?: string;
  /** What starts it: its words come before the executable's. */
  through?: readonly string[];
}

/** A reason why a proof can't be made on this machine. */
export class Skipped extends Error {}

export const question = ["generate", "--model", "demo", "--prompt", "What is 27 + 58?"];
export const rightAnswer = "27 + 58 = 85.";

/** A fresh folder with a home, and the executable. */
export class Bench {
  readonly folder = mkdtempSync(join(tmpdir(), "mlxlm-artefact-"));
  readonly home = join(this.folder, "home");
  readonly temporary = join(this.folder, "temporary");

  /** @param command the executable, after the emulator where there is one */
  constructor(readonly command: readonly string[]) {
    mkdirSync(this.home);
    mkdirSync(this.temporary);
  }

  get executable(): string {
    return this.command.at(-1)!;
  }

  /** The command line for other words, as a list. */
  line(words: readonly string[], { executable = this.executable, through = [] }: RunOptions = {}): string[] {
    return [...through, ...this.command.slice(0, -1), executable, ...words];
  }

  environment({ env = {}, home = this.home }: RunOptions = {}): Record<string, string> {
    const own = { PATH: process.env.PATH ?? "", HF_HUB_OFFLINE: "1", TMPDIR: this.temporary };
    return { ...own, ...(home === null ? {} : { HOME: home }), ...env };
  }

  async run(words: readonly string[], options: RunOptions = {}): Promise<Ran> {
    const child = Bun.spawn(this.line(words, options), {
      cwd: options.cwd ?? this.folder,
      env: this.environment(options),
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
      timeout: 120_000,
      killSignal: "SIGKILL",
    });
    const [out, problems] = await Promise.all([child.stdout.text(), child.stderr.text()]);
    await child.exited;
    return { out, problems, code: child.exitCode };
  }

  /** Names in the home's cache. */
  cached(): string[] {
    return readdirSync(join(this.home, ".cache/mlxlm"));
  }
}

export interface Proof {
  name: string;
  /** Returns what was measured, if anything. @throws Error that says what is wrong, Skipped where it can't be tried */
  prove(bench: Bench): Promise<string | undefined>;
}

export function expect(holds: boolean, what: string, { out, problems, code }: Partial<Ran> = {}): void {
  if (!holds)
    throw new Error(
      `${what}\n  exit code ${code}\n  stdout: ${out?.slice(0, 500)}\n  stderr: ${problems?.slice(0, 800)}`,
    );
}

export const answered = (ran: Ran, where: string) =>
  expect(ran.code === 0 && ran.out.trim().endsWith(rightAnswer), `no answer ${where}`, ran);

/** A refusal in words: not a crash, and with what to do. */
export const refused = (ran: Ran, code: number, words: RegExp, where: string) =>
  expect(ran.code === code && words.test(ran.problems), `not refused with ${words} ${where}`, ran);

/**
 * A command line that mounts a small file system over a folder, for itself alone, and runs another command.
 * @throws Skipped where this user may not
 */
export function mounted(folder: string, options: string): string[] {
  const script = 'mount -t tmpfs -o "$1" none "$2" && shift 2 && exec "$@"';
  const tried = Bun.spawnSync(["unshare", "--mount", "sh", "-c", script, "sh", options, folder, "true"]);
  if (tried.exitCode !== 0) throw new Skipped("file systems can't be mounted here");
  return ["unshare", "--mount", "sh", "-c", script, "sh", options, folder];
}
