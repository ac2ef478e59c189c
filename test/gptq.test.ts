/** `mlxlm gptq`: what it prints and saves, how it goes on after it was killed, and what it refuses before any work. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { convertModel } from "../src/convert/convert";
import { loadModel } from "../src/convert/load";
import * as mx from "../src/mlx";
import { QuantizedEmbedding, QuantizedLinear } from "../src/nn";
import { quantizeByGptq } from "../src/quant/gptq-run";
import { runCommand, startCommand } from "./run-command";

const scratch = mkdtempSync(join(tmpdir(), "mlxlm-gptq-"));
const packed = join(import.meta.dir, "fixtures/checkpoint");
const model = join(scratch, "model");
const text = join(scratch, "text.txt");
const at = (name: string) => join(scratch, name);

beforeAll(async () => {
  await convertModel({ path: packed }, model, { dequantize: true, dtype: "float32" });
  const words = ["The", "cat", "sat", "on", "a", "mat", "and", "ate", "seven", "fish"];
  writeFileSync(text, Array.from({ length: 3000 }, (_, i) => words[(i * i + 3 * i) % 10]).join(" "));
});
afterAll(() => rmSync(scratch, { recursive: true }));

const offline = { env: { HF_HUB_OFFLINE: "1", HOME: scratch }, cwd: scratch };

const gptq = (target: string, ...words: string[]) => [
  ...["gptq", "--model", model, "--mlx-path", at(target), "--data-path", text, "--group-size", "32"],
  ...["--num-samples", "20", "--sequence-length", "32", ...words],
];

const digest = (folder: string) =>
  createHash("sha256")
    .update(readFileSync(join(folder, "model.safetensors")))
    .digest("hex");

describe("a run", () => {
  test("prints bits and quality, and saves a model that runs", async () => {
    const { out, problems, code } = await runCommand(gptq("whole"), offline);
    expect(problems).toBe("[INFO] Loading\n[INFO] Quantizing by 20 rows of 32 tokens\n");
    expect(code).toBe(0);
    const lines = out.split("\n");
    expect(lines[0]).toMatch(/^Quantized model with \d\.\d{3} bits per weight\.$/);
    expect(lines[1]).toMatch(/^Quality on held-out text \(\d+ rows, \d+ tokens\)$/);
    expect(lines.slice(3, 6).map((line) => line.split(/ {2,}/)[0])).toEqual(["original", "gptq", "plain affine"]);
    expect(existsSync(`${at("whole")}.unfinished`)).toBe(false);

    const config = JSON.parse(readFileSync(join(at("whole"), "config.json"), "utf8"));
    const expected = { bits: 4, group_size: 32, "model.embed_tokens": { bits: 6, group_size: 64 } };
    expect(config.quantization).toEqual(expected);
    expect(config.quantization_config).toEqual(expected);
    const loaded = await loadModel(at("whole"));
    const layers = loaded.model
      .namedModules()
      .filter(([, one]) => one instanceof QuantizedLinear || one instanceof QuantizedEmbedding);
    expect(layers.length).toBe(2 * 7 + 2);
    const logits = mx.scope(() => loaded.model.forward(mx.array([[5, 6, 7]], "uint32")));
    expect(Array.from(logits.toArray(), Number).every(Number.isFinite)).toBe(true);
    logits.dispose();
    loaded.model.dispose();
  }, 60_000);

  test.each(["2", "3", "8"])(
    "in %s bits is nearer to the original than plain affine",
    async (bits) => {
      const { out, code } = await runCommand(gptq(`bits${bits}`, "--bits", bits, "--json"), offline);
      expect(code).toBe(0);
      const end = JSON.parse(out);
      expect(end.type).toBe("end");
      expect(end.quality.models.map(({ name }: { name: string }) => name)).toEqual([
        "original",
        "gptq",
        "plain affine",
      ]);
      const [original, ours, plain] = end.quality.models;
      expect(ours.bits_per_weight).toBe(plain.bits_per_weight);
      expect(ours.bits_per_weight).toBe(end.bits_per_weight);
      expect(original.kl_divergence).toBe(0);
      expect(ours.kl_divergence).toBeLessThan(plain.kl_divergence);
      expect(end.quality.held_out).toBe(true);
    },
    60_000,
  );

  test("takes mlx-lm's text where no data is named, and says that nothing was held out", async () => {
    const folder = join(scratch, "home/.cache/mlx-lm");
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, "calibration_v5.txt"), readFileSync(text, "utf8").slice(0, 2000));
    const words = gptq("home-model", "--num-samples", "-1");
    words.splice(words.indexOf("--data-path"), 2);
    const { out, code } = await runCommand(words, { env: { ...offline.env, HOME: join(scratch, "home") } });
    expect(out).toContain("Quality on the calibration text itself: nothing was held out");
    expect(code).toBe(0);
  }, 60_000);
});

describe("going on", () => {
  test.each(["settings.json", "step-00000.safetensors", "states.safetensors", "step-00001.safetensors"])(
    "killed when there was %s, it comes to the same result",
    async (name) => {
      const target = `killed-${name}`;
      const child = startCommand(gptq(target), offline);
      const file = join(`${at(target)}.unfinished`, name);
      while (!existsSync(file) && child.exitCode === null) await Bun.sleep(1);
      child.kill("SIGKILL");
      await child.exited;
      if (!existsSync(at(target))) {
        const { code } = await runCommand(gptq(target, "--resume"), offline);
        expect(code).toBe(0);
      }
      expect(existsSync(`${at(target)}.unfinished`)).toBe(false);
      expect(digest(at(target))).toBe(digest(at("whole")));
    },
    60_000,
  );

  const settings = {
    ...{ bits: 4, groupSize: 32, fallbackBits: 6, fallbackGroupSize: 64, numSamples: 8, sequenceLength: 16 },
    ...{ seed: 1, dataPath: text },
  };
  const run = (resume: boolean, hooks: object = {}) =>
    quantizeByGptq({ path: model }, at("stopped"), { ...settings, resume }, hooks);

  test("work of other settings, or that nobody asks for, is refused; damaged files are errors", async () => {
    const before = mx.liveHandles();
    const stop = new AbortController();
    // The first block is one batch and seven layers.
    const onProgress = (done: number) => done > 8 && stop.abort();
    await expect(run(false, { onProgress, signal: stop.signal })).rejects.toThrow("stopped");
    await expect(run(false)).rejects.toThrow("holds work on");
    const other = quantizeByGptq({ path: model }, at("stopped"), { ...settings, bits: 3, resume: true });
    await expect(other).rejects.toThrow("begun with another --bits: 4, not 3");

    const work = `${at("stopped")}.unfinished`;
    expect(readdirSync(work).sort()).toEqual(["settings.json", "states.safetensors", "step-00000.safetensors"]);
    for (const name of ["step-00000.safetensors", "states.safetensors"]) {
      const file = join(work, name);
      const whole = readFileSync(file);
      const header = 8 + Number(whole.readBigUInt64LE(0));
      const names = Buffer.from(whole.toString("latin1").replaceAll(/model\.layers|"step"/g, "m_del.l_yers"), "latin1");
      for (const bytes of [whole.subarray(0, 4), whole.subarray(0, header), whole.subarray(0, -5), names]) {
        writeFileSync(file, bytes);
        const name = await run(true).then(
          () => "saved",
          (error: Error) => error.name,
        );
        expect(name).toBe("UserError");
      }
      writeFileSync(file, whole);
    }
    expect(mx.liveHandles()).toBe(before);
    await run(true);
    expect(existsSync(work)).toBe(false);
  }, 60_000);
});

describe("refusals come before the work", () => {
  test.each<[string, string[], number, RegExp]>([
    ["a target that exists", ["--mlx-path", packed], 2, /exists already/],
    ["a model that is quantized", ["--model", packed], 2, /is quantized already/],
    ["the model inside mlxlm, which is", ["--model", "demo"], 2, /is quantized already/],
    ["bits that MLX lacks", ["--bits", "7"], 2, /--bits must be one of 2, 3, 4, 5, 6, 8, not 7/],
    ["fallback bits that MLX lacks", ["--fallback-bits", "7"], 2, /--fallback-bits must be one of/],
    ["groups that MLX lacks", ["--group-size", "48"], 2, /--group-size must be one of 32, 64, 128, not 48/],
    ["groups that do not divide", ["--group-size", "128"], 2, /q_proj has 64 inputs.*\n.*--group-size 32 or 64/],
    ["an embedding's groups", ["--fallback-group-size", "128"], 2, /embed_tokens has 64 inputs.*\n.*--fallback-group/],
    ["too little data", ["--sequence-length", "100000"], 2, /fewer tokens than one row of 100000/],
    ["data that is missing", ["--data-path", "nowhere.txt"], 3, /nowhere\.txt/],
    ["nothing to go on with", ["--resume"], 3, /there is no work on/],
  ])(
    "%s",
    async (_, words, code, message) => {
      const run = await runCommand([...gptq("refused"), ...words], offline);
      expect(run.problems).toMatch(message);
      expect(run.problems).not.toContain("internal error");
      expect(run.code).toBe(code);
      expect(readdirSync(scratch).filter((name) => name.startsWith("refused"))).toEqual([]);
    },
    30_000,
  );

  test("no data at all, offline", async () => {
    const words = gptq("refused");
    words.splice(words.indexOf("--data-path"), 2);
    const run = await runCommand(words, offline);
    expect(run.problems).toContain("calibration_v5.txt");
    expect(run.problems).toContain("--data-path");
    expect(run.code).toBe(3);
  }, 30_000);
});
