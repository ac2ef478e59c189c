/** The learned quantizers on two ranks, each with some of the data, give what one process gives with all of it. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { convertModel } from "../../src/convert/convert";
import * as mx from "../../src/mlx";
import { expectValues } from "../parity/fixtures";

const scratch = mkdtempSync(join(tmpdir(), "mlxlm-quantizers-"));
const at = (name: string) => join(scratch, name);

beforeAll(async () => {
  const packed = join(import.meta.dir, "../fixtures/checkpoint");
  await convertModel({ path: packed }, at("model"), { dequantize: true, dtype: "float32" });
  const words = ["The", "cat", "sat", "on", "a", "mat", "and", "ate", "seven", "fish"];
  const text = Array.from({ length: 3000 }, (_, i) => words[(i * i + 3 * i) % 10]);
  writeFileSync(at("text.txt"), text.join(" "));
  const rows = Array.from({ length: 24 }, (_, i) =>
    JSON.stringify({ text: text.slice(9 * i, 9 * i + 6 + i).join(" ") }),
  );
  writeFileSync(at("rows.jsonl"), `${rows.join("\n")}\n`);
});
afterAll(() => rmSync(scratch, { recursive: true }));

const main = join(import.meta.dir, "../../cmd/main.ts");

async function mlxlm(words: readonly string[]) {
  const child = Bun.spawn([process.execPath, main, ...words], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    cwd: scratch,
    env: { ...process.env, HF_HUB_OFFLINE: "1", HOME: scratch },
  });
  const [out, problems, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { out, problems, code };
}

async function run(ranks: number, name: string, ...words: string[]) {
  const launch = ranks > 1 ? ["launch", "-n", `${ranks}`] : [];
  const command = [...launch, name, "--model", at("model"), "--mlx-path", at(`${name}-${ranks}`), "--json", ...words];
  const { out, problems, code } = await mlxlm(command);
  expect({ code, problems }).toMatchObject({ code: 0 });
  expect(existsSync(`${at(`${name}-${ranks}`)}.unfinished`)).toBe(false);
  const events = out.trim().split("\n");
  return events.map((line) => JSON.parse(line) as Record<string, number> & { type: string });
}

const weightsOf = (name: string) => mx.loadSafetensors(join(at(name), "model.safetensors")).arrays;

/** Codes may differ where a sum in another order rounds a weight the other way: of few, by one. */
function expectAlike(name: string, { tolerance, codes }: { tolerance: number; codes: number }) {
  const [alone, together] = [weightsOf(`${name}-1`), weightsOf(`${name}-2`)];
  expect([...together.keys()]).toEqual([...alone.keys()]);
  for (const [path, x] of alone) {
    const y = together.get(path)!;
    if (x.dtype === "uint32") {
      const different = mx.scope(() => x.notEqual(y).astype("float32").mean().item());
      expect({ path, alike: different <= codes }).toEqual({ path, alike: true });
    } else expectValues(y.toArray() as Float32Array, x.toArray() as Float32Array, { tolerance });
  }
  const [one, two] = [1, 2].map((ranks) => readFileSync(join(at(`${name}-${ranks}`), "config.json"), "utf8"));
  expect(two).toBe(one!);
}

const data = (): string[] => ["--data-path", at("text.txt"), "--num-samples", "9", "--sequence-length", "32"];

test("awq", async () => {
  const words = [...data(), "--group-size", "32", "--n-grid", "8"];
  const blocks = async (ranks: number) => (await run(ranks, "awq", ...words)).filter(({ type }) => type === "block");
  const [alone, together] = [await blocks(1), await blocks(2)];
  for (const field of ["loss_plain", "loss"]) {
    expectValues(
      together.map((block) => block[field]! / alone[0]![field]!),
      alone.map((block) => block[field]! / alone[0]![field]!),
      { tolerance: 1e-3 },
    );
  }
  expectAlike("awq", { tolerance: 1e-5, codes: 0.01 });
}, 60_000);

test("dynamic_quant", async () => {
  const words = [...data(), "--low-group-size", "32", "--high-group-size", "32", "--target-bpw", "6.5", "--report-ppl"];
  const sensitivities: string[] = [];
  for (const ranks of [1, 2]) {
    await run(ranks, "dynamic_quant", ...words);
    sensitivities.push(readFileSync(at(`${at("model").replaceAll("/", "_")}_sensitivities.json`), "utf8"));
  }
  expect(sensitivities[1]).toBe(sensitivities[0]!);
  expectAlike("dynamic_quant", { tolerance: 0, codes: 0 });
}, 60_000);

test("dwq", async () => {
  const words = ["--data-path", at("rows.jsonl"), "--num-samples", "12", "--batch-size", "3", "--group-size", "32"];
  const losses = async (ranks: number, ...more: string[]) =>
    (await run(ranks, "dwq", ...words, ...more)).flatMap(({ type, loss }) => (type === "val" ? loss! : []));
  const alone = await losses(1, "--target-dir", at("targets"));
  expectValues(await losses(2, "--target-dir", at("targets")), alone, { tolerance: 1e-5 });
  // The step is 1e-6: its direction alone depends on the gradient.
  expectAlike("dwq", { tolerance: 1e-5, codes: 0 });
  rmSync(at("dwq-2"), { recursive: true });
  expectValues(await losses(2), alone, { tolerance: 1e-5 });
}, 60_000);

test("what ranks cannot do is refused", async () => {
  const refused = async (...words: string[]) =>
    (await mlxlm(["launch", "-n", "2", ...words, "--model", at("model"), "--mlx-path", at("none")])).problems;
  expect(await refused("awq", "--resume", ...data())).toContain("--resume does not go with several ranks");
  const dwq = ["dwq", "--data-path", at("rows.jsonl"), "--num-samples", "4", "--group-size", "32"];
  expect(await refused(...dwq, "--batch-size", "2", "--target-dir", at("no targets"))).toContain(
    "ranks do not make them",
  );
}, 60_000);
