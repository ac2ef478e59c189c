#!/usr/bin/env bun
/**
 * Runs the commands of the docs, each page in a folder of its own, and compares what they print with the page: `bun run
 * walk`, `bun run walk fine-tuning`. Numbers may differ. With `--write` what was printed is put into the pages.
 */
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";

const root = join(import.meta.dir, "../..");
const docs = join(root, "docs");

const writes = process.argv.includes("--write");
const named = process.argv.slice(2).filter((word) => word !== "--write");

/** Those that show commands with their output; a client's need a server beside them. */
const pages = [...new Bun.Glob("**/*.md").scanSync({ cwd: docs })]
  .filter((path) => !path.startsWith("clients/"))
  .filter((path) => named.length === 0 || named.some((part) => path.includes(part)))
  .sort()
  .map((path) => join(docs, path))
  .filter((path) => /^```console$/m.test(readFileSync(path, "utf8")));

interface Step {
  command: string;
  /** Lines of the page, from 0: behind the command, and where the next one or the end of the block is. */
  from: number;
  to: number;
  /** Its output is on the page. */
  isShown: boolean;
}

/** The commands in blocks of sh and console. A block with a command that needs more than this machine is left out. */
function stepsOf(lines: readonly string[]): Step[] {
  const steps: Step[] = [];
  let language: string | null = null;
  // What is generated has examples with models that need a download.
  const first = lines.indexOf("<!-- end -->");
  for (const [i, line] of lines.entries()) {
    if (i < first) continue;
    const fence = /^```(\w*)/.exec(line);
    if (fence) {
      if (steps.at(-1)?.to === -1) steps.at(-1)!.to = i;
      language = language === null ? fence[1]! : null;
    } else if (language === "sh" && !/ upload /.test(line)) {
      steps.push({ command: line, from: i, to: i, isShown: false });
    } else if (language === "console" && line.startsWith("$ ")) {
      if (steps.at(-1)?.to === -1) steps.at(-1)!.to = i;
      steps.push({ command: line.slice(2), from: i + 1, to: -1, isShown: true });
    }
  }
  return steps;
}

const mark = "--- end of step";

/** What each command printed, on stdout and stderr together. */
function run(steps: readonly Step[]): string[][] {
  const folder = mkdtempSync(join(tmpdir(), "mlxlm-walk-"));
  try {
    mkdirSync(join(folder, "bin"));
    mkdirSync(join(folder, "work"));
    const program = join(folder, "bin/mlxlm");
    writeFileSync(program, `#!/bin/sh\nexec "${process.execPath}" "${root}/cmd/main.ts" "$@"\n`);
    chmodSync(program, 0o755);
    const script = steps.map(({ command }) => `${command}\necho "${mark}"`).join("\n");
    const { stdout, exitCode } = Bun.spawnSync(["bash", "-e", "-c", `exec 2>&1\n${script}`], {
      cwd: join(folder, "work"),
      env: { ...process.env, PATH: `${folder}/bin:${process.env.PATH}`, HF_HUB_OFFLINE: "1" },
    });
    const printed = stdout.toString().split(`${mark}\n`);
    if (exitCode !== 0) throw new Error(`a command failed:\n${printed.at(-1)}`);
    return printed.slice(0, -1).map((text) => text.split("\n").slice(0, -1));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Without what may differ from run to run: numbers, signs of more and less, what a machine is called, and does beside. */
const comparable = (lines: readonly string[]) =>
  lines.map((line) =>
    line
      .replace(/; the machine is busy.*/, "")
      .replaceAll(/\([^()]*\)/g, "()")
      .replaceAll(/[\d,.]+(?:e-\d+)?k?/g, "#")
      .replaceAll(/[▲▼█]+/g, "~")
      .replaceAll(/\s+/g, " ")
      .trim(),
  );

let [passed, differing] = [0, 0];
for (const path of pages) {
  const lines = readFileSync(path, "utf8").split("\n");
  const steps = stepsOf(lines);
  const printed = run(steps);
  for (const [i, { command, from, to, isShown }] of [...steps.entries()].reverse()) {
    if (!isShown) continue;
    const [now, then] = [comparable(printed[i]!), comparable(lines.slice(from, to))];
    if (writes) lines.splice(from, to - from, ...printed[i]!);
    else if (now.join("\n") === then.join("\n")) passed++;
    else {
      differing++;
      console.log(
        `$ ${command}\n  ${relative(root, path)} has:\n${then.join("\n")}\n  it printed:\n${now.join("\n")}\n`,
      );
    }
  }
  if (writes) writeFileSync(path, lines.join("\n"));
}
if (!writes) console.log(`${passed} passed, ${differing} failed`);
process.exit(differing > 0 ? 1 : 0);
