/** Runs a command in a process of its own, by its file, as `cmd/main.ts` does by its name. */
import { join } from "node:path";

export interface Run {
  code: number;
  out: string;
  problems: string;
}

const root = join(import.meta.dir, "..");

const script = `
  import { Output } from "${root}/src/cli/output.ts";
  import { parseFlags } from "${root}/src/cli/parse.ts";
  import { reportError } from "${root}/src/cli/report-error.ts";
  const [name, ...words] = process.argv.slice(1);
  const json = words.includes("--json");
  try {
    const { default: command } = await import("${root}/cmd/" + name + ".ts");
    const flags = parseFlags(words, command.flags, command.name);
    await command.run({ flags, out: new Output(json), signal: new AbortController().signal });
  } catch (error) {
    process.exitCode = reportError(error, { json, debug: false });
  }
  process.exit();
`;

interface Surroundings {
  stdin?: string;
  env?: Record<string, string>;
  cwd?: string;
}

/** The command's process, for tests that end it. */
export function startCommand(words: readonly string[], { stdin = "", env = {}, cwd }: Surroundings = {}) {
  return Bun.spawn([process.execPath, "-e", script, ...words], {
    stdin: new Blob([stdin]),
    stdout: "pipe",
    stderr: "pipe",
    cwd,
    env: { ...process.env, ...env },
  });
}

export async function runCommand(words: readonly string[], surroundings: Surroundings = {}): Promise<Run> {
  const child = startCommand(words, surroundings);
  const [out, problems, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { code, out, problems };
}
