/** The program as a user meets it: words in, text and exit code out. */
import { describe, expect, test } from "bun:test";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { version } from "../package.json";

const main = join(import.meta.dir, "../cmd/main.ts");
const checkpoint = join(import.meta.dir, "fixtures/checkpoint");

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

  test("a command's help names every flag and fits 90 columns", async () => {
    const { code, out } = await mlxlm(["generate", "--help"]);
    expect(code).toBe(0);
    expect(out).toMatchSnapshot();
    const tooWide = out.split("\n").filter((line) => line.length > 90);
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

  test("the version", async () => {
    expect(await mlxlm(["--version"])).toEqual({ code: 0, out: `${version}\n`, problems: "" });
  });

  test.each(["bash", "zsh", "fish"])("completion for %s", async (shell) => {
    const { code, out } = await mlxlm(["completion", shell]);
    expect(code).toBe(0);
    expect(out).toContain("max-tokens");
    expect(out).not.toContain("--image");
  });

  test.each([
    [["genrate"], /no command "genrate"\n.*Did you mean generate\?/],
    [["server", "--port", "8080"], /"server" is not available yet/],
    [["__proto__"], /no command/],
    [["completion"], /name of a shell/],
    [["generate", "--temp"], /--temp needs a value/],
  ])("%p is refused", async (words, message) => {
    const { code, out, problems } = await mlxlm(words);
    expect(code).toBe(2);
    expect(out).toBe("");
    expect(problems).toMatch(message);
    expect(problems).not.toContain("    at ");
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
    [["--max-tokens", "0"], 2, /max-tokens must be 1 or more/],
    [["--prompt", "word ".repeat(5000)], 2, /tokens, the model takes/],
    [["--top-k", "100000", "--temp", "1"], 2, /top/],
  ])("%p is refused", async (words, code, message) => {
    const run = await generate(...words);
    expect(run.problems).toMatch(message);
    expect(run.code).toBe(code);
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
    const child = Bun.spawn(
      [process.execPath, main, "generate", "--model", checkpoint, "-m", "-1", "--temp", "1", "--extra-eos-token", "0"],
      {
        stdout: "pipe",
        stderr: "pipe",
      },
    );
    const reader = child.stdout.getReader();
    await reader.read();
    child.kill("SIGINT");
    const began = performance.now();
    expect(await child.exited).toBe(130);
    expect(performance.now() - began).toBeLessThan(3000);
    expect(await child.stderr.text()).toMatch(/Generation: \d+ tokens/);
  });
});

/** Every id of the checkpoint's vocabulary: whichever comes first ends the answer. */
function ids(): string[] {
  return Array.from({ length: 384 }, (_, i) => `${i}`);
}
