/** `mlxlm cache_prompt`, and `generate --prompt-cache-file` from what it wrote. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { demoFolder } from "../src/demo/folder";
import { copyWithoutEnd } from "./endless-model";

const main = join(import.meta.dir, "../cmd/main.ts");
const folder = mkdtempSync(join(tmpdir(), "mlxlm-cache-prompt-"));
afterAll(() => rmSync(folder, { recursive: true }));

async function mlxlm(words: string[], stdin = "") {
  const child = Bun.spawn([process.execPath, main, ...words], {
    stdin: new Blob([stdin]),
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, HF_HUB_OFFLINE: "1" },
  });
  const [out, problems, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { out, problems, code };
}

const cachePrompt = (file: string, ...words: string[]) =>
  mlxlm(["cache_prompt", "--model", "demo", "--prompt-cache-file", join(folder, file), ...words]);
const generate = (file: string, ...words: string[]) =>
  mlxlm(["generate", "--prompt-cache-file", join(folder, file), ...words]);

const sum = "7 + 8 = 15, so 5 and carry 1. 2 + 5 + 1 = 8. 27 + 58 = 85.\n";

describe("a prompt's cache", () => {
  test("is written, and generate goes on from it with the model that it names", async () => {
    const { out, problems, code } = await cachePrompt("sum", "--prompt", "What is 27");
    expect({ out, code }).toEqual({ out: "", code: 0 });
    expect(problems).toMatch(/^Processed {6}8 tokens \([\d.]+ tok\/s\)\nPeak memory: \d\.\d{3} GB\nSaving\.\.\.\n$/);
    const answer = await generate("sum", "--prompt", " + 58?");
    expect(answer.out).toBe(sum);
    expect(answer.problems).toMatch(/Prompt: 1\d tokens/);
    // The file serves as often as one likes.
    expect((await generate("sum.safetensors", "--prompt", " + 58?")).out).toBe(sum);
  });

  test("from stdin, quantized, in steps; --json says what was written", async () => {
    const words = ["--kv-bits", "8", "--kv-group-size", "32", "--quantized-kv-start", "0", "--prefill-step-size", "4"];
    const command = ["cache_prompt", "--model", "demo", "--prompt-cache-file", join(folder, "packed"), "--prompt", "-"];
    const { out, code } = await mlxlm([...command, ...words, "--json"], "What is 27");
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({ file: join(folder, "packed.safetensors"), prompt_tokens: 8 });
    expect((await generate("packed", "--prompt", " + 58?")).out).toBe(sum);
    expect((await generate("packed", "--prompt", " + 58?", "--kv-bits", "4")).problems).toMatch(
      /the saved cache has 8 bits in groups of 32, not 4 in groups of 64/,
    );
  });

  test("--eos-token ends the answers", async () => {
    await cachePrompt("eos", "--prompt", "What is 27", "--eos-token", ",");
    expect((await generate("eos", "--prompt", " + 58?")).out).toBe("7 + 8 = 15\n");
  });

  test.each<[string[], number, RegExp]>([
    [["cache_prompt", "--model", "demo"], 2, /--prompt and --prompt-cache-file must be given/],
    [["cache_prompt", "--model", "demo", "--prompt", " ", "--prompt-cache-file", "x"], 2, /the prompt is empty/],
    [
      ["generate", "--prompt-cache-file", join(import.meta.dir, "fixtures/checkpoint/model.safetensors")],
      1,
      /model\.safetensors is no prompt-cache file: it holds weights of a model/,
    ],
    [["generate", "--prompt-cache-file", "/nowhere/x"], 3, /no prompt-cache file \/nowhere\/x\.safetensors/],
    [
      ["cache_prompt", "--model", "demo", "--prompt", "fox ".repeat(2000), "--prompt-cache-file", "x"],
      2,
      /the prompt has \d+ tokens, the model takes 1024/,
    ],
    [["cache_prompt", "--model", "/nowhere", "--prompt", "x", "--prompt-cache-file", "x"], 3, /\/nowhere/],
  ])("is refused (%#)", async (words, code, message) => {
    const run = await mlxlm(words);
    expect(run.problems).toMatch(message);
    expect(run.code).toBe(code);
    expect(run.out).toBe("");
  });

  test("does not go with another model, a draft model, or a broken file", async () => {
    await cachePrompt("one", "--prompt", "hello");
    const other = await generate("one", "--model", "other");
    expect([other.code, other.problems]).toEqual([2, expect.stringMatching(/was made with the model demo, not other/)]);
    const draft = await generate("one", "--draft-model", "demo");
    expect([draft.code, draft.problems]).toEqual([2, expect.stringMatching(/--draft-model does not go with/)]);
    const path = join(folder, "one.safetensors");
    writeFileSync(path, readFileSync(path).subarray(0, 5000));
    const broken = await generate("one");
    expect([broken.code, broken.problems]).toEqual([1, expect.stringMatching(/one\.safetensors is not a sound/)]);
  });

  test("Ctrl-C while the prompt is read leaves the file as it was", async () => {
    await cachePrompt("kept", "--prompt", "hello");
    const before = readFileSync(join(folder, "kept.safetensors"));
    // Reading so many tokens would take minutes on any machine.
    const model = copyWithoutEnd(demoFolder(), join(folder, "model"));
    const command = ["cache_prompt", "--model", model, "--prompt-cache-file", join(folder, "kept"), "--prompt", "-"];
    const child = Bun.spawn([process.execPath, main, ...command, "--prefill-step-size", "1"], {
      stdin: "pipe",
      stderr: "pipe",
    });
    // A pipe holds less: once all is written, the command has begun to read.
    child.stdin.write("a fox and ".repeat(30_000));
    await child.stdin.end();
    await Bun.sleep(300);
    child.kill("SIGINT");
    expect(await child.exited).toBe(130);
    expect(child.signalCode).toBe(null);
    expect(readFileSync(join(folder, "kept.safetensors")).equals(before)).toBe(true);
    expect(readdirSync(folder).filter((name) => name.startsWith("."))).toEqual([]);
  });
});
