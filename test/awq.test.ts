/** `mlxlm awq`: what it prints and saves, how it goes on after it was killed, and what it refuses before any work. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { convertModel } from "../src/convert/convert";
import { loadModel } from "../src/convert/load";
import * as mx from "../src/mlx";
import { Embedding, Linear, QuantizedEmbedding, QuantizedLinear } from "../src/nn";
import { quantizeByAwq } from "../src/quant/awq-run";
import { runCommand, startCommand } from "./run-command";

const scratch = mkdtempSync(join(tmpdir(), "mlxlm-awq-"));
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

const offline = { env: { HF_HUB_OFFLINE: "1", HOME: scratch } };

const awq = (target: string, ...words: string[]) => [
  ...["awq", "--model", model, "--mlx-path", at(target), "--data-path", text, "--group-size", "32"],
  ...["--num-samples", "6", "--sequence-length", "32", "--n-grid", "8", ...words],
];

const digest = (folder: string) =>
  createHash("sha256")
    .update(readFileSync(join(folder, "model.safetensors")))
    .digest("hex");

describe("a run", () => {
  test("prints each block's gain and the quality, and saves a model that runs", async () => {
    const { out, problems, code } = await runCommand(awq("whole"), offline);
    expect(problems).toBe("[INFO] Loading\n[INFO] Quantizing by 6 rows of 32 tokens\n");
    expect(code).toBe(0);
    const lines = out.split("\n");
    expect(lines.slice(0, 2).every((line) => /^Loss reduction: 0\.\d{6}$/.test(line))).toBe(true);
    expect(lines[2]).toMatch(/^Quantized model with \d\.\d{3} bits per weight\.$/);
    expect(lines[3]).toMatch(/^Quality on held-out text \(\d+ rows, \d+ tokens\)$/);
    expect(lines.slice(5, 8).map((line) => line.split(/ {2,}/)[0])).toEqual(["original", "awq", "plain affine"]);
    expect(existsSync(`${at("whole")}.unfinished`)).toBe(false);

    const config = JSON.parse(readFileSync(join(at("whole"), "config.json"), "utf8"));
    expect(config.quantization).toMatchObject({
      ...{ group_size: 32, bits: 4 },
      "model.embed_tokens": { group_size: 32, bits: 4 },
      "model.layers.0.self_attn.q_proj": { group_size: 32, bits: 4 },
      "model.norm": false,
    });
    const loaded = await loadModel(at("whole"));
    const left = loaded.model.namedModules().filter(([, one]) => one instanceof Linear || one instanceof Embedding);
    expect(left).toEqual([]);
    const kinds = loaded.model
      .namedModules()
      .filter(([, one]) => one instanceof QuantizedLinear || one instanceof QuantizedEmbedding);
    expect(kinds.length).toBe(2 * 7 + 2);
    loaded.model.dispose();
  }, 60_000);

  test("--json gives an event a block, and the report at the end", async () => {
    const words = ["--bits", "3", "--embed-bits", "6", "--embed-group-size", "64", "--json"];
    const { out, code } = await runCommand(awq("json", ...words), offline);
    expect(code).toBe(0);
    const events = out
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(events.map(({ type }) => type)).toEqual(["block", "block", "end"]);
    for (const { loss, loss_plain, fell_back } of events.slice(0, 2)) {
      expect(loss).toBeLessThan(loss_plain);
      expect(fell_back).toBe(false);
    }
    const end = events[2];
    expect(end.quality.models.map(({ name }: { name: string }) => name)).toEqual(["original", "awq", "plain affine"]);
    const [, ours, plain] = end.quality.models;
    expect(ours.bits_per_weight).toBe(plain.bits_per_weight);
    expect(ours.kl_divergence).toBeLessThan(plain.kl_divergence);
    const config = JSON.parse(readFileSync(join(at("json"), "config.json"), "utf8"));
    expect(config.quantization.lm_head).toEqual({ group_size: 64, bits: 6 });
    expect(config.quantization["model.layers.1.mlp.up_proj"]).toEqual({ group_size: 32, bits: 3 });
  }, 60_000);
});

describe("going on", () => {
  test("killed after a block, it comes to the same result", async () => {
    // So much to search for that it does not end by itself ahead of the signal.
    const words = ["--num-samples", "24"];
    const child = startCommand(awq("killed", ...words), offline);
    const first = join(`${at("killed")}.unfinished`, "block-00000.safetensors");
    while (!existsSync(first) && child.exitCode === null) await Bun.sleep(2);
    child.kill("SIGKILL");
    await child.exited;
    expect(existsSync(at("killed"))).toBe(false);
    expect(existsSync(first)).toBe(true);

    const forgotten = await runCommand(awq("killed", ...words), offline);
    expect(forgotten.problems).toContain("holds work on");
    expect(forgotten.problems).toContain("--resume");
    expect(forgotten.code).toBe(2);
    const other = await runCommand(awq("killed", ...words, "--resume", "--bits", "3"), offline);
    expect(other.problems).toContain("begun with another --bits: 4, not 3");
    expect(other.code).toBe(2);

    const { out, code } = await runCommand(awq("killed", ...words, "--resume", "--json"), offline);
    expect(code).toBe(0);
    expect(JSON.parse(out.split("\n")[0]!)).toMatchObject({ type: "block", index: 0, resumed: true });
    const whole = await runCommand(awq("again", ...words), offline);
    expect(whole.code).toBe(0);
    expect(digest(at("killed"))).toBe(digest(at("again")));
    expect(existsSync(`${at("killed")}.unfinished`)).toBe(false);
  }, 120_000);

  test("a block's file that is damaged is an error at any byte, never a crash", async () => {
    const settings = {
      ...{ bits: 4, groupSize: 32, embedBits: 4, embedGroupSize: 32, nGrid: 2, numSamples: 2, sequenceLength: 16 },
      ...{ seed: 1, dataPath: text },
    };
    const stop = new AbortController();
    const onBlock = () => stop.abort();
    const run = quantizeByAwq(
      { path: model },
      at("damaged"),
      { ...settings, resume: false },
      { onBlock, signal: stop.signal },
    );
    await expect(run).rejects.toThrow("stopped after 1 of 2 blocks");
    const work = `${at("damaged")}.unfinished`;
    const file = join(work, "block-00000.safetensors");
    const whole = readFileSync(file);
    const header = 8 + Number(whole.readBigUInt64LE(0));
    for (const bytes of [whole.subarray(0, 0), whole.subarray(0, header), whole.subarray(0, -5), Buffer.alloc(64)]) {
      writeFileSync(file, bytes);
      await expect(quantizeByAwq({ path: model }, at("damaged"), { ...settings, resume: true })).rejects.toThrow(
        /sound safetensors|does not say/,
      );
    }
    let refused = 0;
    writeFileSync(file, whole);
    cpSync(work, at("begun"), { recursive: true });
    for (let i = 8; i < header; i += 97) {
      cpSync(at("begun"), work, { recursive: true });
      const bytes = Buffer.from(whole);
      bytes[i]! ^= 0x15;
      writeFileSync(file, bytes);
      // Another digit of the loss is no damage that can be seen.
      await quantizeByAwq({ path: model }, at("damaged"), { ...settings, resume: true }).catch((error: Error) => {
        expect(error.name).toBe("UserError");
        refused++;
      });
      rmSync(at("damaged"), { recursive: true, force: true });
    }
    expect(refused).toBeGreaterThan(10);
  }, 120_000);
});

describe("refusals come before the work", () => {
  test.each<[string, string[], number, RegExp]>([
    ["a target that exists", ["--mlx-path", packed], 2, /exists already/],
    ["a model that is quantized", ["--model", packed], 2, /is quantized already/],
    ["bits that MLX lacks", ["--bits", "7"], 2, /--bits must be one of 2, 3, 4, 5, 6, 8, not 7/],
    ["groups that do not divide", ["--group-size", "128"], 2, /inputs, which are no multiple of the group size 128/],
    ["an embedding's groups", ["--embed-group-size", "128"], 2, /embed_tokens has 64 inputs.*\n.*--embed-group-size/],
    ["too little data", ["--sequence-length", "100000"], 2, /fewer tokens than one row of 100000/],
    ["data that is missing", ["--data-path", "nowhere.txt"], 3, /nowhere\.txt/],
    ["nothing to go on with", ["--resume"], 3, /there is no work on/],
  ])(
    "%s",
    async (_, words, code, message) => {
      const run = await runCommand([...awq("refused"), ...words], offline);
      expect(run.problems).toMatch(message);
      expect(run.problems).not.toContain("internal error");
      expect(run.code).toBe(code);
      expect(readdirSync(scratch).filter((name) => name.startsWith("refused"))).toEqual([]);
    },
    30_000,
  );

  test("a type of model that it does not know, with those that it does", async () => {
    const other = at("bitnet");
    cpSync(model, other, { recursive: true });
    const config = JSON.parse(readFileSync(join(other, "config.json"), "utf8"));
    writeFileSync(join(other, "config.json"), JSON.stringify({ ...config, model_type: "bitnet" }));
    const run = await runCommand([...awq("refused"), "--model", other], offline);
    expect(run.problems).toContain('AWQ does not know models of type "bitnet"');
    expect(run.problems).toMatch(/It knows .*llama, .*mixtral, .*qwen2/);
    expect(run.code).toBe(3);
  }, 30_000);

  test("no data at all, offline", async () => {
    const words = awq("refused");
    words.splice(words.indexOf("--data-path"), 2);
    const run = await runCommand(words, offline);
    expect(run.problems).toContain("--data-path");
    expect(run.code).toBe(3);
  }, 30_000);
});

test("neither a run nor one that is stopped leaves tensors behind", async () => {
  const settings = {
    ...{ bits: 4, groupSize: 32, embedBits: 4, embedGroupSize: 32, nGrid: 3, numSamples: 3, sequenceLength: 16 },
    ...{ seed: 1, dataPath: text, resume: false },
  };
  const live: number[] = [];
  for (const name of ["one", "two", "three"]) {
    await quantizeByAwq({ path: model }, at(name), settings);
    live.push(mx.liveHandles());
  }
  expect(new Set(live).size).toBe(1);
  const stopped = quantizeByAwq({ path: model }, at("four"), settings, { signal: AbortSignal.abort() });
  await expect(stopped).rejects.toThrow("stopped");
  expect(mx.liveHandles()).toBe(live[0]!);
}, 60_000);
