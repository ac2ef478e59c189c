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

export async function runCommand(
  words: readonly string[],
  { stdin = "", env = {} }: { stdin?: string; env?: Record<string, string> } = {},
): Promise<Run> {
  const child = Bun.spawn([process.execPath, "-e", script, ...words], {
    stdin: new Blob([stdin]),
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, ...env },
  });
  const [out, problems, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { code, out, problems };
}
