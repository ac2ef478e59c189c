/** `mlxlm dynamic_quant`: what it prints and saves, how it goes on after it was killed, and what it refuses. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { convertModel } from "../src/convert/convert";
import { loadModel } from "../src/convert/load";
import { QuantizedLinear } from "../src/nn";
import { runCommand, startCommand } from "./run-command";

const scratch = mkdtempSync(join(tmpdir(), "mlxlm-dynamic-"));
const packed = join(import.meta.dir, "fixtures/checkpoint");
const model = join(scratch, "model");
const text = join(scratch, "text.txt");
const at = (name: string) => join(scratch, name);
/** In the working folder, by the model's name. */
const listed = at(`${model.replaceAll("/", "_")}_sensitivities.json`);

beforeAll(async () => {
  await convertModel({ path: packed }, model, { dequantize: true, dtype: "float32" });
  const words = ["The", "cat", "sat", "on", "a", "mat", "and", "ate", "seven", "fish"];
  writeFileSync(text, Array.from({ length: 3000 }, (_, i) => words[(i * i + 3 * i) % 10]).join(" "));
});
afterAll(() => rmSync(scratch, { recursive: true }));

const offline = { env: { HF_HUB_OFFLINE: "1", HOME: scratch }, cwd: scratch };

const dynamic = (target: string, ...words: string[]) => [
  ...["dynamic_quant", "--model", model, "--mlx-path", at(target), "--data-path", text],
  ...["--num-samples", "20", "--sequence-length", "32", "--target-bpw", "5", "--low-bits", "3", ...words],
];

const digest = (folder: string) =>
  createHash("sha256")
    .update(readFileSync(join(folder, "model.safetensors")))
    .digest("hex");

interface Facts {
  name: string;
  bits_per_weight: number;
  kl_divergence: number;
}

describe("a run", () => {
  test("prints mlx-lm's lines, and saves the list of sensitivities and a model that runs", async () => {
    const { out, problems, code } = await runCommand(dynamic("whole", "--report-ppl"), offline);
    const stages = problems
      .replaceAll(/\d\.\d{3}/g, "N")
      .trim()
      .split("\n");
    expect(stages).toEqual([
      "[INFO] Loading",
      "[INFO] Estimating sensitivities by 20 rows of 32 tokens",
      `[INFO] Sensitivities are in ${listed.slice(scratch.length + 1)}`,
      "[INFO] Quantized model with N bits per weight.",
    ]);
    expect(code).toBe(0);
    const lines = out.split("\n");
    expect(lines[0]).toMatch(/^Original PPL: \d+\.\d{3}$/);
    expect(lines[1]).toMatch(/^Quantized PPL: \d+\.\d{3}$/);
    expect(lines[2]).toMatch(/^Peak memory used: \d+\.\d{3}GB$/);
    expect(lines[3]).toMatch(/^Quality on held-out text/);

    const pairs: [string, number][] = JSON.parse(readFileSync(listed, "utf8"));
    expect(pairs.length).toBe(2 * 7 + 2);
    const { quantization } = JSON.parse(readFileSync(join(at("whole"), "config.json"), "utf8"));
    const { group_size, bits, mode, ...high } = quantization;
    expect([group_size, bits, mode]).toEqual([64, 3, "affine"]);
    const ranked = pairs.sort((a, b) => b[1] - a[1]).map(([path]) => path);
    const count = Object.keys(high).length;
    expect(Object.keys(high).sort()).toEqual(ranked.slice(0, count).sort());
    expect(Object.values(high)).toEqual(new Array(count).fill({ bits: 5, group_size: 64 }));
    const loaded = await loadModel(at("whole"));
    const widths = loaded.model
      .namedModules()
      .flatMap(([path, one]) => (one instanceof QuantizedLinear ? [[path, one.packing.bits] as const] : []));
    for (const [path, bits] of widths) expect(bits).toBe(path in high ? 5 : 3);
    loaded.model.dispose();
  }, 60_000);

  test("is nearer to the original than as many bits that nobody chose; a list spares the estimate", async () => {
    const { out, code } = await runCommand(dynamic("listed", "--sensitivities", listed, "--json"), offline);
    expect(code).toBe(0);
    const end = JSON.parse(out);
    const of = (name: string): Facts => end.quality.models.find((one: Facts) => one.name === name);
    const ours = of("dynamic_quant");
    const unchosen = of("plain affine 3/5 bits");
    // As mlx-lm's bisection ends: near the target, on either side.
    expect(Math.abs(ours.bits_per_weight - 5)).toBeLessThan(0.1);
    expect(ours.kl_divergence).toBeLessThan(unchosen.kl_divergence);
    expect(ours.kl_divergence).toBeLessThan(of("plain affine 3 bits").kl_divergence);
    expect(digest(at("listed"))).toBe(digest(at("whole")));
  }, 60_000);

  test("with a list needs no data", async () => {
    const words = dynamic("without", "--sensitivities", listed);
    words.splice(words.indexOf("--data-path"), 2);
    const { out, problems, code } = await runCommand(words, offline);
    expect(out).not.toContain("Quality");
    expect(problems).toContain("There is no text to measure the quality on");
    expect(code).toBe(0);
    expect(digest(at("without"))).toBe(digest(at("whole")));
  }, 60_000);
});

describe("going on", () => {
  test.each([1, 3])(
    "killed after batch %d, it comes to the same result",
    async (batches) => {
      const target = `killed-${batches}`;
      const child = startCommand(dynamic(target), offline);
      const file = Bun.file(join(`${at(target)}.unfinished`, "sums.json"));
      const done = async () => ((await file.json().catch(() => null)) as { batches: number } | null)?.batches ?? 0;
      while ((await done()) < batches && child.exitCode === null) await Bun.sleep(1);
      child.kill("SIGKILL");
      await child.exited;
      if (!existsSync(at(target))) {
        const forgotten = await runCommand(dynamic(target), offline);
        expect(forgotten.problems).toContain("--resume");
        expect(forgotten.code).toBe(2);
        rmSync(listed, { force: true });
        expect((await runCommand(dynamic(target, "--resume"), offline)).code).toBe(0);
      }
      expect(existsSync(`${at(target)}.unfinished`)).toBe(false);
      expect(existsSync(listed)).toBe(true);
      expect(digest(at(target))).toBe(digest(at("whole")));
    },
    60_000,
  );
});

test("a default target out of reach becomes the nearest, and says so", async () => {
  const words = dynamic("nearest", "--low-bits", "2", "--high-bits", "3").filter((word, i, all) => {
    return word !== "--target-bpw" && all[i - 1] !== "--target-bpw";
  });
  const { out, problems, code } = await runCommand(words, offline);
  expect(problems).toMatch(/\[INFO\] 5 bits per weight cannot be reached with these bits: going to \d\.\d{3}/);
  expect(out).toContain("Quality on");
  expect(code).toBe(0);
}, 60_000);

describe("refusals come before the work", () => {
  test.each<[string, string[], number, RegExp]>([
    ["a target that exists", ["--mlx-path", packed], 2, /exists already/],
    ["a model that is quantized", ["--model", packed], 2, /is quantized already/],
    ["more low bits than high", ["--low-bits", "6"], 2, /--low-bits \(6\) must be fewer than --high-bits \(5\)/],
    ["bits that MLX lacks", ["--high-bits", "7"], 2, /--high-bits must be one of 2, 3, 4, 5, 6, 8, not 7/],
    ["groups that do not divide", ["--high-group-size", "128"], 2, /no multiple of the group size 128/],
    [
      "a target out of reach",
      ["--target-bpw", "3"],
      2,
      /3 bits a weight cannot be reached: .* from \d\.\d+ to \d\.\d+/,
    ],
    ["too little data", ["--sequence-length", "100000"], 2, /fewer tokens than one row of 100000/],
    ["no file of sensitivities", ["--sensitivities", "nowhere.json"], 3, /there is no file nowhere\.json/],
    ["nothing to go on with", ["--resume"], 3, /there is no work on/],
    ["an unknown type", ["--accumulation-dtype", "float8"], 2, /--accumulation-dtype/],
  ])(
    "%s",
    async (_, words, code, message) => {
      const run = await runCommand([...dynamic("refused"), ...words], offline);
      expect(run.problems).toMatch(message);
      expect(run.problems).not.toContain("internal error");
      expect(run.code).toBe(code);
      expect(readdirSync(scratch).filter((name) => name.startsWith("refused"))).toEqual([]);
    },
    30_000,
  );

  test("no data at all, offline", async () => {
    const words = dynamic("refused");
    words.splice(words.indexOf("--data-path"), 2);
    const run = await runCommand(words, offline);
    expect(run.problems).toContain("--data-path");
    expect(run.code).toBe(3);
  }, 30_000);
});
