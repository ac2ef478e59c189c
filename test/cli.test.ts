/** The program as a user meets it: words in, text and exit code out. */
import { describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { version } from "../package.json";
import { deviceCount } from "../src/mlx";
import { copyWithoutEnd } from "./endless-model";
import { TerminalProgram } from "./terminal";

const main = join(import.meta.dir, "../cmd/main.ts");
const checkpoint = join(import.meta.dir, "fixtures/checkpoint");

const gpus = deviceCount("gpu");

interface Run {
  code: number;
  out: string;
  problems: string;
}

async function mlxlm(
  words: string[],
  { stdin, env = {} }: { stdin?: string; env?: Record<string, string> } = {},
): Promise<Run> {
  const child = Bun.spawn([process.execPath, main, ...words], {
    stdin: stdin === undefined ? "ignore" : new Blob([stdin]),
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, HF_HUB_OFFLINE: "1", ...env },
  });
  const [out, problems, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { code, out, problems };
}

const generate = (...words: string[]) => mlxlm(["generate", "--model", checkpoint, "-m", "8", ...words]);

describe("without a model", () => {
  test("help", async () => {
    for (const words of [[], ["--help"], ["-h"], ["help"]]) {
      const { code, out } = await mlxlm(words);
      expect(code).toBe(0);
      expect(out).toMatch(/\n {2}generate {2,}Generate/);
      expect(out).toContain("lora");
    }
  });

  test("a command's help names every flag and fits 80 columns", async () => {
    const { code, out } = await mlxlm(["generate", "--help"]);
    expect(code).toBe(0);
    expect(out).toMatchSnapshot();
    const tooWide = out.split("\n").filter((line) => line.length > 80);
    expect(tooWide).toEqual([]);
  });

  test("environment variables of ours are listed, checked, and a misspelt one is warned of", async () => {
    expect((await mlxlm(["--help"])).out).toContain("MLXLM_CPU_ISA");
    const wrong = await mlxlm(["models", "list"], { env: { MLXLM_CPU_ISA: "axv2" } });
    expect(wrong.code).toBe(2);
    expect(wrong.problems).toContain("plain, avx2, avx512 or avx512_bf16");
    const misspelt = await mlxlm(["models", "list"], { env: { MLXLM_TREADS: "2" } });
    expect(misspelt.problems).toContain("did you mean MLXLM_THREADS?");
  });

  test("help of a command by its name, laid out for the terminal's columns", async () => {
    const piped = await mlxlm(["help", "chat"]);
    expect(piped.out).toBe((await mlxlm(["chat", "--help"])).out);
    for (const columns of [40, 80]) {
      for (const name of ["generate", "lora", "models"]) {
        const page = new TerminalProgram([process.execPath, main, "help", name], { columns });
        await page.ended();
        const lines = Bun.stripANSI(page.screen).split(/\r?\n/);
        const words = ({ length }: string) => length;
        expect(lines.filter((line) => Bun.stringWidth(line) > columns && line.trim().includes(" "))).toEqual([]);
        expect(lines.map(words).reduce((a, b) => Math.max(a, b))).toBeGreaterThan(columns / 2);
      }
    }
  });

  test("the version", async () => {
    expect(await mlxlm(["--version"])).toEqual({ code: 0, out: `${version}\n`, problems: "" });
  });

  test.each(["mlxlm.generate", "/usr/local/bin/mlx_lm.generate"])("a link named %s is that command", async (argv0) => {
    const child = Bun.spawn([process.execPath, main, "--help"], { argv0, stdout: "pipe" });
    expect(await child.stdout.text()).toBe((await mlxlm(["generate", "--help"])).out);
  });

  test("completion has a help", async () => {
    const { code, out } = await mlxlm(["completion", "--help"]);
    expect([code, out.split("\n")[0]]).toEqual([0, "Usage: mlxlm completion bash|zsh|fish"]);
    expect((await mlxlm(["help", "completion"])).out).toBe(out);
  });

  test.each(["--verison", "-v", "-V"])("%s is asked about as --version", async (word) => {
    const { code, problems } = await mlxlm([word]);
    expect(code).toBe(2);
    expect(problems).toContain("Did you mean --version?");
  });

  test.each(["bash", "zsh", "fish"])("completion for %s", async (shell) => {
    const { code, out } = await mlxlm(["completion", shell]);
    expect(code).toBe(0);
    expect(out).toContain("max-tokens");
  });

  test("bash completes values: devices, dtypes, models, subcommands, shells", async () => {
    const cache = mkdtempSync(join(tmpdir(), "mlxlm-cli-"));
    mkdirSync(join(cache, "models--org--name/snapshots/main"), { recursive: true });
    const cases = [
      ["ge", "generate"],
      ["generate --dev", "--device"],
      ["generate --device ", "cpu gpu"],
      ["convert --dtype b", "bfloat16"],
      ["generate --model or", "org/name"],
      ["chat de", "demo"],
      ["models ", "list info fit arch rm"],
      ["models info o", "org/name"],
      ["completion ", "bash zsh fish"],
      ["help lo", "lora"],
      ["generate --prompt x", ""],
    ] as const;
    const script = `cd "${cache}"; mlxlm() { "${process.execPath}" "${main}" "$@"; }; eval "$(mlxlm completion bash)"
try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _mlxlm; echo "\${COMPREPLY[*]}"; }
${cases.map(([line]) => `try mlxlm ${line.replace(/ $/, ' ""')}`).join("\n")}`;
    const env = { ...process.env, HF_HUB_CACHE: cache };
    const { stdout } = Bun.spawnSync(["bash", "--norc", "-c", script], { env, stderr: "inherit" });
    expect(stdout.toString().split("\n").slice(0, -1)).toEqual(cases.map(([, words]) => words));
  });

  test.each([
    [["genrate"], /no command "genrate"\n.*Did you mean generate\?/],
    [["share"], /share needs to know what to copy/],
    [["share", "--model", "demo"], /share needs hosts to copy to/],
    [["server", "--host", "0.0.0.0"], /nothing protects it\n.*--api-key/],
    [["server", "--keep-alive", "soon"], /--keep-alive must be a time/],
    [["__proto__"], /no command/],
    [["completion"], /name of a shell/],
    [["generate", "--temp"], /--temp needs a value/],
    [["run", "demo"], /no command "run"\n.*mlxlm chat MODEL/],
    [["ps"], /mlxlm models list/],
    [["pull", "org/name"], /downloaded when it is first used: mlxlm chat REPO/],
    [["serve"], /mlxlm server/],
    [["generate", "--temperature", "1"], /Did you mean --temp\?/],
  ])("%p is refused", async (words, message) => {
    const { code, out, problems } = await mlxlm(words);
    expect(code).toBe(2);
    expect(out).toBe("");
    expect(problems).toMatch(message);
    expect(problems).not.toContain("    at ");
  });

  test.skipIf(gpus > 0)("a GPU where there is none is refused in our words", async () => {
    const { code, problems } = await mlxlm(["generate", "--model", "demo", "--device", "gpu"]);
    expect(code).toBe(2);
    expect(problems).toMatch(/^mlxlm: there is no GPU here that MLX can use\n {7}Leave out --device/);
  });

  test("errors are an object with --json, and have a stack with --debug", async () => {
    const json = await mlxlm(["generate", "--json", "--model", "./nowhere"]);
    expect(json.code).toBe(3);
    expect(JSON.parse(json.problems)).toEqual({
      error: { code: 3, message: "there is no folder ./nowhere", hint: "Check the path." },
    });
    const debug = await mlxlm(["generate", "--debug", "--model", "./nowhere"]);
    expect(debug.problems).toContain("    at ");
  });
});

describe("generate", () => {
  test("writes the answer to stdout and the figures to stderr", async () => {
    const { code, out, problems } = await generate("--prompt", "A fox");
    expect(code).toBe(0);
    expect(out.endsWith("\n")).toBe(true);
    expect(problems).toMatch(
      /^={10}\n={10}\nPrompt: \d+ tokens, [\d.]+ tokens-per-sec\nGeneration: \d+ tokens, [\d.]+ tokens-per-sec\nPeak memory: \d+\.\d{3} GB\n$/,
    );
    expect((await generate("--prompt", "A fox", "--verbose", "False")).problems).toBe("");
  });

  test("reads the prompt from stdin, and understands \\n in a flag", async () => {
    const stdin = await mlxlm(["generate", "--model", checkpoint, "-m", "8", "--prompt", "-"], { stdin: "A\nfox" });
    const escaped = await generate("--prompt", "A\\nfox");
    expect(stdin.out).toBe(escaped.out);
    expect(stdin.out).not.toBe((await generate("--prompt", "Afox")).out);
  });

  test("reads the prompt from a pipe without being told to; nothing in it is no prompt", async () => {
    const words = ["generate", "--model", checkpoint, "-m", "8"];
    const piped = await mlxlm(words, { stdin: "A\nfox" });
    expect(piped.out).toBe((await generate("--prompt", "A\\nfox")).out);
    expect((await mlxlm(words, { stdin: "" })).out).toBe((await generate()).out);
    expect((await mlxlm([...words, "--prompt", "A"], { stdin: "fox" })).out).toBe(
      (await generate("--prompt", "A")).out,
    );
  });

  test("model and prompt as words of their own", async () => {
    const { code, out } = await mlxlm(["generate", checkpoint, "A fox", "-m", "8"]);
    expect(code).toBe(0);
    expect(out).toBe((await generate("--prompt", "A fox")).out);
  });

  test("the same seed gives the same text, another seed another", async () => {
    const sampled = (seed: string) => generate("--temp", "1", "--top-p", "0.95", "--seed", seed, "-m", "24");
    const [a, b, c] = [await sampled("1"), await sampled("1"), await sampled("2")];
    expect(a.out).toBe(b.out);
    expect(a.out).not.toBe(c.out);
  });

  test("a JSON answer has mlx-lm's field names", async () => {
    const { out, problems } = await generate("--json");
    expect(problems).toBe("");
    expect(Object.keys(JSON.parse(out)).sort()).toEqual([
      "finish_reason",
      "generation_tokens",
      "generation_tps",
      "peak_memory",
      "prompt_tokens",
      "prompt_tps",
      "text",
    ]);
  });

  test("further tokens that end the answer, by id and by text", async () => {
    const whole = JSON.parse((await generate("--json", "-m", "30")).out);
    expect(
      JSON.parse((await generate("--json", "-m", "30", "--extra-eos-token", ...ids())).out).generation_tokens,
    ).toBe(1);
    expect(whole.generation_tokens).toBeGreaterThan(1);
    expect((await generate("--extra-eos-token", "<|no such token|>")).code).not.toBe(0);
  });

  test.each([
    [["--ignore-chat-template", "--prompt", ""], 2, /prompt is empty/],
    [["--prompt", ""], 2, /prompt is empty/],
    [["--prompt", " \\n"], 2, /prompt is empty/],
    [["--max-tokens", "0"], 2, /max-tokens must be 1 or more/],
    [["--prompt", "word ".repeat(5000)], 2, /tokens, the model takes/],
    [["--top-k", "100000", "--temp", "1"], 2, /top/],
  ])("%p is refused", async (words, code, message) => {
    const run = await generate(...words);
    expect(run.problems).toMatch(message);
    expect(run.code).toBe(code);
  });

  test("a file or a pipe without a word is no prompt", async () => {
    const empty = join(mkdtempSync(join(tmpdir(), "mlxlm-cli-")), "empty.txt");
    writeFileSync(empty, "");
    const words = [process.execPath, main, "generate", "--model", checkpoint];
    const { exitCode, stderr } = Bun.spawnSync(words, { stdin: Bun.file(empty), stderr: "pipe" });
    expect(stderr.toString()).toMatch(/prompt is empty/);
    expect(exitCode).toBe(2);
    expect((await mlxlm(words.slice(2), { stdin: "\n" })).problems).toMatch(/prompt is empty/);
  });

  test("a repo that is not in the cache, offline", async () => {
    const env = { HF_HUB_CACHE: mkdtempSync(join(tmpdir(), "mlxlm-cli-")) };
    const { code, problems } = await mlxlm(["generate", "--model", "org/name"], { env });
    expect(code).toBe(3);
    expect(problems).toContain("HF_HUB_OFFLINE");
  });

  test("a reader that goes away ends it quietly", async () => {
    const command = `"${process.execPath}" "${main}" generate --model "${checkpoint}" -m 200 --verbose False | head -c 1`;
    const { exitCode, stderr } = Bun.spawnSync(["bash", "-c", command], { stderr: "pipe" });
    expect(exitCode).toBe(0);
    expect(stderr.toString()).toBe("");
  });

  test("Ctrl-C ends it within a step, with the figures so far and exit code 130", async () => {
    // Its likeliest tokens come round again and again.
    const model = copyWithoutEnd(checkpoint, mkdtempSync(join(tmpdir(), "mlxlm-endless-")));
    const child = Bun.spawn([process.execPath, main, "generate", "--model", model, "-m", "-1", "--temp", "0"], {
      stdout: "pipe",
      stderr: "pipe",
    });
    const reader = child.stdout.getReader();
    await reader.read();
    child.kill("SIGINT");
    const began = performance.now();
    expect(await child.exited).toBe(130);
    expect(performance.now() - began).toBeLessThan(10_000);
    expect(await child.stderr.text()).toMatch(/Generation: \d+ tokens/);
    rmSync(model, { recursive: true });
  });
});

/** Every id of the checkpoint's vocabulary: whichever comes first ends the answer. */
function ids(): string[] {
  return Array.from({ length: 384 }, (_, i) => `${i}`);
}
