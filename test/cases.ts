/**
 * Inputs that were answered wrongly once, one of each kind, run on the built executable: `bun run cases [NAME…]`. The
 * inputs are made here by formula. A line for each case; exit code 1 where one is wrong. MLXLM names another executable.
 */
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { Case, Ran, RunOptions } from "./cases/case";
import { checkpointCases } from "./cases/checkpoint-cases";
import { dataCases } from "./cases/data-cases";
import { systemCases } from "./cases/system-cases";
import { tokenizerCases } from "./cases/tokenizer-cases";

const cases: readonly Case[] = [...checkpointCases, ...tokenizerCases, ...dataCases, ...systemCases].toSorted(
  (a, b) => (a.name < b.name ? -1 : 1),
);

/** Milliseconds that one command may take. */
const longest = 30_000;

/** @throws Error that says what is wrong */
async function runCase({ name, check }: Case, executable: string): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), `mlxlm-case-${name}-`));
  const home = join(folder, "home");
  mkdirSync(home);
  const run = async (words: readonly string[], { env, cwd = folder, limit }: RunOptions = {}): Promise<Ran> => {
    const command = limit ? ["prlimit", `--as=${limit}`, executable, ...words] : [executable, ...words];
    const child = Bun.spawn(command, {
      cwd,
      env: { HOME: home, PATH: process.env.PATH, XDG_CACHE_HOME: unpacked(), HF_HUB_OFFLINE: "1", ...env },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
      timeout: longest,
      killSignal: "SIGKILL",
    });
    const [out, problems] = await Promise.all([child.stdout.text(), child.stderr.text()]);
    await child.exited;
    const ran = { out, problems, code: child.exitCode, signal: child.signalCode, text: answerIn(out) };
    if (ran.signal) throw new Error(`mlxlm ${words[0]} was ended by ${ran.signal}`);
    if (/internal error|MLX:/.test(problems)) throw new Error(problems.trim());
    return ran;
  };
  try {
    await check({ folder, run });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

let shared: string | undefined;

/** Where the executable unpacks its files, once for all cases. */
function unpacked(): string {
  shared ??= mkdtempSync(join(tmpdir(), "mlxlm-cases-"));
  return shared;
}

/** What a model wrote, without the lines around it. */
const answerIn = (out: string) => out.replace(/^=+\n/gm, "").trim();

if (import.meta.main) {
  const { positionals } = parseArgs({ allowPositionals: true });
  const executable = process.env.MLXLM ?? join(import.meta.dir, "../dist/mlxlm");
  if (!existsSync(executable)) throw new Error(`${executable} is missing: bun run build`);
  const wanted = cases.filter(({ name }) => positionals.length === 0 || positionals.includes(name));
  let wrong = 0;
  for (const one of wanted) {
    const began = performance.now();
    const problem = await runCase(one, executable).then(
      () => null,
      (error: Error) => error.message,
    );
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    console.log(`${problem === null ? "right" : "WRONG"}  ${one.name}  ${seconds} s  ${one.right}`);
    if (problem !== null) console.log(`       ${problem.split("\n").join("\n       ")}`);
    if (problem !== null) wrong++;
  }
  if (shared) rmSync(shared, { recursive: true, force: true });
  console.log(`${wanted.length - wrong} of ${wanted.length} are right`);
  process.exit(wrong > 0 || wanted.length === 0 ? 1 : 0);
}
