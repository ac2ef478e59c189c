/** Training on two processes takes the steps that one takes with all rows of a batch, and goes on where it ended. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as mx from "../../src/mlx";
import { expectValues } from "../parity/fixtures";

const main = join(import.meta.dir, "../../cmd/main.ts");
const folder = mkdtempSync(join(tmpdir(), "mlxlm-lora-ranks-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const data = join(folder, "data");
mkdirSync(data);
const rows = Array.from({ length: 24 }, (_, i) =>
  JSON.stringify({ text: `Row ${i}: ${"word ".repeat(1 + ((i * 7) % 11))}end` }),
);
for (const split of ["train", "valid"]) writeFileSync(join(data, `${split}.jsonl`), `${rows.join("\n")}\n`);

function start(ranks: number, name: string, words: readonly string[]) {
  const launch = ranks > 1 ? ["launch", "-n", `${ranks}`] : [];
  const training = [
    "lora",
    "--train",
    "--model",
    join(folder, "model"),
    "--data",
    data,
    "--adapter-path",
    join(folder, name),
    "--json",
  ];
  const sizes = [
    "--batch-size",
    "5",
    "--num-layers",
    "1",
    "--val-batches",
    "1",
    "--steps-per-report",
    "1",
    "--steps-per-eval",
    "2",
  ];
  // Adam divides by the size of gradients, and would make much of a rounding of the smallest.
  sizes.push("--optimizer", "sgd", "--learning-rate", "0.01");
  return Bun.spawn([process.execPath, main, ...launch, ...training, ...sizes, ...words], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
}

async function lora(ranks: number, name: string, words: readonly string[]) {
  const child = start(ranks, name, words);
  const [out, problems, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  expect({ code, problems }).toMatchObject({ code: 0 });
  const lines = out.trim().split("\n");
  return lines.map((line) => JSON.parse(line) as { type: string; loss: number; trained_tokens?: number });
}

const adaptersOf = (name: string) => mx.loadSafetensors(join(folder, name, "adapters.safetensors")).arrays;

function expectAlike(one: string, other: string) {
  const [first, second] = [adaptersOf(one), adaptersOf(other)];
  expect([...second.keys()]).toEqual([...first.keys()]);
  for (const [name, x] of first) {
    expectValues(second.get(name)!.toArray() as Float32Array, x.toArray() as Float32Array, { tolerance: 1e-5 });
  }
}

// Rounding to half precision is coarser than what is compared here.
beforeAll(async () => {
  const words = [
    "convert",
    "--hf-path",
    "demo",
    "--dequantize",
    "--dtype",
    "float32",
    "--mlx-path",
    join(folder, "model"),
  ];
  const child = Bun.spawn([process.execPath, main, ...words], { stdout: "ignore", stderr: "pipe" });
  expect({ code: await child.exited, problems: await child.stderr.text() }).toMatchObject({ code: 0 });
}, 60_000);

test("2 ranks with a part of each batch are one with all of it, to the end and from a checkpoint", async () => {
  const alone = await lora(1, "alone", ["--iters", "3"]);
  const together = await lora(2, "together", ["--iters", "3"]);
  const figures = (events: typeof alone) => events.filter(({ type }) => type === "train" || type === "val");
  expect(figures(together).map(({ type, trained_tokens }) => [type, trained_tokens])).toEqual(
    figures(alone).map(({ type, trained_tokens }) => [type, trained_tokens]),
  );
  expectValues(
    figures(together).map(({ loss }) => loss),
    figures(alone).map(({ loss }) => loss),
    { tolerance: 1e-5 },
  );
  expectAlike("alone", "together");

  const packed = ["--iters", "2", "--packing", "--max-seq-length", "64", "--batch-size", "3"];
  await lora(1, "packed alone", packed);
  await lora(2, "packed together", packed);
  expectAlike("packed alone", "packed together");

  await lora(2, "resumed", ["--iters", "2", "--save-every", "2"]);
  await lora(2, "resumed", ["--iters", "3", "--resume"]);
  expectAlike("together", "resumed");
}, 120_000);

test("an interrupt of the launcher ends all ranks when the training is saved", async () => {
  const child = start(2, "interrupted", ["--iters", "100000"]);
  const report = '"type":"train"';
  let said = "";
  for await (const chunk of child.stdout) {
    const before = said;
    said += new TextDecoder().decode(chunk);
    if (said.includes(report) && !before.includes(report)) child.kill("SIGINT");
  }
  expect(await child.exited).toBe(130);
  expect(adaptersOf("interrupted").size).toBeGreaterThan(0);
  const steps = said.split("\n").filter((line) => line.includes(report)).length;
  const resumed = await lora(2, "interrupted", ["--iters", `${steps + 1}`, "--resume"]);
  expect(resumed.filter(({ type }) => type === "train")).toHaveLength(1);
}, 120_000);
