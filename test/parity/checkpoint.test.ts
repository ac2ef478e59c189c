/** A checkpoint that `mlx_lm.convert -q` wrote: the command prints the text that Python's prints. */
import { expect, test } from "bun:test";
import { fileURLToPath } from "node:url";
import { fixture } from "./fixtures";

interface Run {
  prompt: number[];
  tokens: number[];
  finish_reason: "stop" | "length";
  text: string;
}

const { prompt, max_tokens, ...runs } = fixture<{ prompt: string; max_tokens: number; template: Run; plain: Run }>(
  "checkpoint.json",
);
const main = fileURLToPath(new URL("../../cmd/main.ts", import.meta.url));
const model = fileURLToPath(new URL("../fixtures/checkpoint", import.meta.url));

async function generate(...flags: string[]): Promise<string> {
  const command = ["bun", main, "generate", "--model", model, "--prompt", prompt];
  // In bfloat16 every operation's own rounding shows in the text: it is Python's with MLX's operations.
  const env = { ...process.env, MLXLM_CPU_KERNELS: "0" };
  const words = [...command, "--max-tokens", `${max_tokens}`, "--temp", "0", ...flags];
  const run = Bun.spawn(words, { stderr: "pipe", env });
  const [out, problems, code] = await Promise.all([run.stdout.text(), run.stderr.text(), run.exited]);
  expect({ code, problems: code === 0 ? "" : problems }).toEqual({ code: 0, problems: "" });
  return out;
}

for (const [kind, flags] of [
  ["template", []],
  ["plain", ["--ignore-chat-template"]],
] as const) {
  const expected = runs[kind];

  test(`${kind}: the same text`, async () => {
    expect(await generate(...flags, "--verbose", "False")).toBe(expected.text);
  });

  test(`${kind}: the same counts`, async () => {
    const answer = JSON.parse(await generate(...flags, "--json"));
    expect(answer).toMatchObject({
      text: expected.text.replace(/\n$/, ""),
      prompt_tokens: expected.prompt.length,
      generation_tokens: expected.tokens.length,
      finish_reason: expected.finish_reason,
    });
  });
}
