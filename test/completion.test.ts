/** Completions in the shells themselves: what Tab gives. Shells that are not installed are left out. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TerminalProgram } from "./terminal";

const main = join(import.meta.dir, "../cmd/main.ts");
const folder = mkdtempSync(join(tmpdir(), "mlxlm-completion-"));
const work = join(folder, "work");
const env = { PATH: `${folder}/bin:${process.env.PATH}`, HF_HUB_CACHE: folder, HOME: folder, HF_HUB_OFFLINE: "1" };

const script = (shell: string) => join(folder, `completion.${shell}`);

beforeAll(async () => {
  mkdirSync(join(folder, "models--org--name/snapshots/main"), { recursive: true });
  mkdirSync(join(folder, "bin"));
  mkdirSync(work);
  writeFileSync(join(work, "notes.txt"), "");
  const program = join(folder, "bin/mlxlm");
  writeFileSync(program, `#!/bin/sh\nexec "${process.execPath}" "${main}" "$@"\n`);
  chmodSync(program, 0o755);
  for (const shell of ["bash", "zsh", "fish"]) {
    const { stdout } = Bun.spawnSync([program, "completion", shell], { env });
    writeFileSync(script(shell), stdout);
  }
});

afterAll(() => rmSync(folder, { recursive: true }));

/** A line up to the cursor, and words that are offered there; or that the first is not. */
const cases: readonly [line: string, offered: string[], not?: string][] = [
  ["mlxlm ge", ["generate"]],
  ["mlxlm generate --dev", ["--device"]],
  ["mlxlm generate --device ", ["cpu", "gpu"], "notes.txt"],
  ["mlxlm convert --q-mode m", ["mxfp4", "mxfp8"], "affine"],
  ["mlxlm generate --verbose ", ["True", "False"]],
  ["mlxlm generate --model or", ["org/name"]],
  ["mlxlm chat --adapter-path no", ["notes.txt"]],
  ["mlxlm models ", ["list", "info", "rm"], "notes.txt"],
  ["mlxlm models info o", ["org/name"]],
  ["mlxlm completion ", ["bash", "zsh", "fish"]],
  ["mlxlm help ex", ["exit-codes"]],
  ["mlxlm help lo", ["lora"]],
];

test.skipIf(!Bun.which("bash"))("bash", () => {
  const lines = cases.map(([line]) => `try ${line.replace(/ $/, ' ""')}`);
  const text = `source "${script("bash")}"
try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _mlxlm; echo "\${COMPREPLY[*]}"; }
${lines.join("\n")}
try mlxlm generate --device = c`;
  const { stdout } = Bun.spawnSync(["bash", "--norc", "-c", text], { cwd: work, env, stderr: "inherit" });
  const answers = stdout.toString().split("\n");
  for (const [i, [line, offered, not]] of cases.entries()) {
    const words = answers[i]!.split(" ");
    expect([line, ...words]).toEqual(expect.arrayContaining([line, ...offered]));
    if (not) expect(words).not.toContain(not);
  }
  expect(answers[cases.length]).toBe("cpu");
});

test.skipIf(!Bun.which("fish"))("fish", () => {
  const lines = cases.map(([line]) => `echo ---; complete -C"${line}"`);
  const text = `source "${script("fish")}"\n${lines.join("\n")}`;
  const { stdout } = Bun.spawnSync(["fish", "--no-config", "-c", text], { cwd: work, env, stderr: "inherit" });
  const answers = stdout.toString().split("---\n").slice(1);
  for (const [i, [line, offered, not]] of cases.entries()) {
    const words = answers[i]!.split("\n").map((one) => one.split("\t")[0]!);
    expect([line, ...words]).toEqual(expect.arrayContaining([line, ...offered]));
    if (not) expect(words).not.toContain(not);
  }
  expect(answers[0]).toContain("generate\tGenerate text from a prompt");
});

describe.skipIf(!Bun.which("zsh"))("zsh", () => {
  /** What the line is when Tab was pressed at its end. */
  async function completed(...lines: string[]): Promise<string[]> {
    const shell = new TerminalProgram(["zsh", "-f", "-i"], { env: { ...env, PROMPT: "> ", ZDOTDIR: folder } });
    const results: string[] = [];
    shell.type(
      `bindkey -e; cd "${work}"; autoload -U compinit; compinit -u -D; source "${script("zsh")}"; echo rea''dy\n`,
    );
    await shell.until("ready");
    for (const [i, line] of lines.entries()) {
      // To the beginning of the line, which is then printed in place of being run.
      shell.type(`${line}\t\x01echo ${i}'<' \x05 '>'${i}\n`);
      await shell.until(`\n${i}< `);
      results.push((await shell.until(` >${i}`)).slice(0, -` >${i}`.length).trim());
    }
    shell.kill("SIGKILL");
    return results;
  }

  test("completes commands, flags, values, models and files", async () => {
    const lines = {
      "mlxlm gene": "mlxlm generate",
      "mlxlm generate --dev": "mlxlm generate --device",
      "mlxlm generate --device c": "mlxlm generate --device cpu",
      "mlxlm convert --q-mode a": "mlxlm convert --q-mode affine",
      "mlxlm generate --model or": "mlxlm generate --model org/name",
      "mlxlm chat --adapter-path no": "mlxlm chat --adapter-path notes.txt",
      "mlxlm models in": "mlxlm models info",
      "mlxlm models info or": "mlxlm models info org/name",
      "mlxlm completion f": "mlxlm completion fish",
      "mlxlm help ex": "mlxlm help exit-codes",
    };
    expect(await completed(...Object.keys(lines))).toEqual(Object.values(lines));
  }, 60_000);
});
