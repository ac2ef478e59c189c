/** `mlxlm dwq`: what it prints and saves, targets in files, going on after a kill, and what it refuses before any work. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { convertModel } from "../src/convert/convert";
import { loadModel } from "../src/convert/load";
import * as mx from "../src/mlx";
import { type DwqSettings, quantizeByDwq } from "../src/quant/dwq-run";
import { runCommand, startCommand } from "./run-command";

const scratch = mkdtempSync(join(tmpdir(), "mlxlm-dwq-"));
const packed = join(import.meta.dir, "fixtures/checkpoint");
const model = join(scratch, "model");
const data = join(scratch, "chats.jsonl");
const at = (name: string) => join(scratch, name);

beforeAll(async () => {
  await convertModel({ path: packed }, model, { dequantize: true, dtype: "float32" });
  const words = ["the", "cat", "sat", "on", "a", "mat", "and", "ate", "seven", "fish"];
  const said = (i: number, count: number) => Array.from({ length: count }, (_, n) => words[(i + n * n) % 10]).join(" ");
  const chats = Array.from({ length: 320 }, (_, i) => ({
    messages: [
      { role: "user", content: said(i, 2 + (i % 5)) },
      { role: "assistant", content: said(3 * i, 4 + (i % 7)) },
    ],
  }));
  writeFileSync(data, chats.map((chat) => JSON.stringify(chat)).join("\n"));
});
afterAll(() => rmSync(scratch, { recursive: true }));

const offline = { env: { HF_HUB_OFFLINE: "1", HOME: scratch } };

const dwq = (target: string, ...words: string[]) => [
  ...["dwq", "--model", model, "--mlx-path", at(target), "--data-path", data, "--group-size", "32", "--bits", "2"],
  ...["--num-samples", "80", "--batch-size", "2", "--max-seq-length", "33", "--learning-rate", "1e-3", ...words],
];

const settings: DwqSettings = {
  ...{ bits: 2, groupSize: 32, numSamples: 8, maxSeqLength: 33, seed: 1, learningRate: 1e-3, batchSize: 2 },
  ...{ dataPath: data, gradCheckpoint: false, targetsOnly: false, resume: false },
};

const digest = (folder: string) =>
  createHash("sha256")
    .update(readFileSync(join(folder, "model.safetensors")))
    .digest("hex");

describe("a run", () => {
  test("prints mlx-lm's lines and the quality, and saves a model that runs", async () => {
    const { out, problems, code } = await runCommand(dwq("whole"), offline);
    expect(problems).toBe("[INFO] Loading\n");
    expect(code).toBe(0);
    const lines = out.split("\n");
    expect(lines[0]).toMatch(/^Trainable parameters: \d+\.\d{3}% \(0\.\d{3}M\/0\.\d{3}M\)$/);
    expect(lines[1]).toMatch(/^Validation: it=0, loss=\d\.\d{3}$/);
    const training = /^it=19, avg_loss=\d\.\d{4}, total_tokens=\d+, toks_per_sec=\d+\.\d{3}, peak_memory_gb=0\.\d{3}$/;
    expect(lines[2]).toMatch(training);
    expect(lines[3]).toStartWith("it=39, avg_loss=");
    expect(lines[4]).toMatch(/^Validation: it=39, loss=\d\.\d{3}$/);
    expect(lines[5]).toMatch(/^Quality on held-out text/);
    expect(lines.slice(7, 10).map((line) => line.split(/ {2,}/)[0])).toEqual(["original", "dwq", "plain affine"]);
    expect(existsSync(`${at("whole")}.unfinished`)).toBe(false);
    const loaded = await loadModel(at("whole"));
    const dtypes = new Set(loaded.model.namedParameters().map(([, { dtype }]) => dtype));
    expect([...dtypes].sort()).toEqual(["float32", "uint32"]);
    loaded.model.dispose();
  }, 60_000);

  test("targets in files, a quantized model of one's own, checkpointed blocks; better than plain rounding", async () => {
    const targets = at("targets");
    const only = await runCommand(dwq("none", "--target-dir", targets, "--targets-only"), offline);
    expect(only.problems).toContain("Computing targets into");
    expect(only.code).toBe(0);
    expect(existsSync(at("none"))).toBe(false);
    expect([readdirSync(join(targets, "train")).length, readdirSync(join(targets, "valid")).length]).toEqual([40, 16]);
    expect(readdirSync(join(targets, "train")).sort()[0]).toBe("0000000000.safetensors");

    await convertModel({ path: model }, at("student"), { quantize: { bits: 3, groupSize: 32 } });
    const before = statSync(join(targets, "train/0000000000.safetensors")).mtimeMs;
    const words = ["--target-dir", targets, "--quantized-model", at("student"), "--grad-checkpoint", "--json"];
    const { out, code } = await runCommand(dwq("taught", ...words), offline);
    expect(code).toBe(0);
    expect(statSync(join(targets, "train/0000000000.safetensors")).mtimeMs).toBe(before);
    const events = out
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(events.map(({ type }) => type)).toEqual(["val", "train", "train", "val", "end"]);
    const end = events.at(-1)!;
    expect(end.final_loss).toBeLessThan(end.initial_loss);
    const [, ours, plain] = end.quality.models;
    expect(ours.bits_per_weight).toBe(plain.bits_per_weight);
    expect(ours.kl_divergence).toBeLessThan(plain.kl_divergence);
    const config = JSON.parse(readFileSync(join(at("taught"), "config.json"), "utf8"));
    expect(config.quantization).toMatchObject({ bits: 3, group_size: 32 });
  }, 90_000);

  test("a worse model gets mlx-lm's warning", async () => {
    const { out, code } = await runCommand(dwq("worse", "--learning-rate", "0.3", "--num-samples", "8"), offline);
    expect(out).toMatch(
      /❌❌❌\n\[WARNING\] Final validation loss \d+\.\d{3} is worse than initial validation loss \d\.\d{3}\./,
    );
    expect(code).toBe(0);
  }, 60_000);
});

describe("going on", () => {
  test("killed after a checkpoint, it comes to the same result", async () => {
    const words = ["--num-samples", "240"];
    const child = startCommand(dwq("killed", ...words), offline);
    const state = join(`${at("killed")}.unfinished`, "training.safetensors");
    while (!existsSync(state) && child.exitCode === null) await Bun.sleep(2);
    child.kill("SIGKILL");
    await child.exited;
    expect(existsSync(at("killed"))).toBe(false);

    const forgotten = await runCommand(dwq("killed", ...words), offline);
    expect(forgotten.problems).toContain("holds work on");
    expect(forgotten.code).toBe(2);
    const other = await runCommand(dwq("killed", ...words, "--resume", "--learning-rate", "1e-4"), offline);
    expect(other.problems).toContain("begun with another --learning-rate: 0.001, not 0.0001");
    expect(other.code).toBe(2);

    const { out, code } = await runCommand(dwq("killed", ...words, "--resume"), offline);
    expect(code).toBe(0);
    expect(out).not.toContain("Validation: it=0,");
    const whole = await runCommand(dwq("again", ...words), offline);
    expect(digest(at("killed"))).toBe(digest(at("again")));
    const lines = (text: string) => text.split("\n").filter((line) => line.startsWith("Validation: it=119"));
    expect(lines(out)).toEqual(lines(whole.out));
    expect(lines(out).length).toBe(1);
  }, 120_000);

  test("interrupted targets are completed, and a state that is damaged is an error", async () => {
    const targetDir = at("partial");
    const stop = new AbortController();
    const onTarget = (done: number) => done === 18 && stop.abort();
    const stopped = quantizeByDwq(
      { path: model },
      at("partial-model"),
      { ...settings, targetDir },
      { onTarget, signal: stop.signal },
    );
    await expect(stopped).rejects.toThrow("stopped");
    expect(readdirSync(join(targetDir, "train")).length).toBe(2);
    const halt = new AbortController();
    const onStep = (done: number) => done === 3 && halt.abort();
    const halted = quantizeByDwq(
      { path: model },
      at("partial-model"),
      { ...settings, targetDir },
      { onStep, signal: halt.signal },
    );
    await expect(halted).rejects.toThrow("stopped after 3 steps");
    expect(readdirSync(join(targetDir, "train")).length).toBe(4);

    const work = `${at("partial-model")}.unfinished`;
    const file = join(work, "training.safetensors");
    const whole = readFileSync(file);
    const header = 8 + Number(whole.readBigUInt64LE(0));
    const resume = () => quantizeByDwq({ path: model }, at("partial-model"), { ...settings, targetDir, resume: true });
    for (const bytes of [whole.subarray(0, 0), whole.subarray(0, header), whole.subarray(0, -3), Buffer.alloc(64)]) {
      writeFileSync(file, bytes);
      await expect(resume()).rejects.toThrow(/sound safetensors|does not say/);
    }
    cpSync(join(targetDir, "train/0000000003.safetensors"), file);
    await expect(resume()).rejects.toThrow("does not say how far it got");
    writeFileSync(file, whole);
    expect((await resume())!.progress.iteration).toBe(4);
  }, 60_000);
});

describe("targets that do not fit are refused", () => {
  const targetDir = () => at("made");
  beforeAll(async () => {
    await quantizeByDwq({ path: model }, at("x"), { ...settings, targetDir: targetDir(), targetsOnly: true });
  });

  test("of another seed", async () => {
    const run = quantizeByDwq({ path: model }, at("x"), { ...settings, seed: 2, targetDir: targetDir() });
    await expect(run).rejects.toThrow(/made with another/);
  });

  test("another program's, incomplete", async () => {
    cpSync(targetDir(), at("foreign"), { recursive: true });
    rmSync(join(at("foreign"), "targets.json"));
    rmSync(join(at("foreign"), "train/0000000001.safetensors"));
    const run = quantizeByDwq({ path: model }, at("x"), { ...settings, targetDir: at("foreign") });
    await expect(run).rejects.toThrow("has targets of 3 and 16 batches, but the data gives 4 and 16");
  });

  const tensors = {
    "of another shape": () => ({ logits: mx.zeros([2, 5, 8]), indices: mx.zeros([2, 5, 8], "uint32") }),
    "without indices": () => ({ logits: mx.zeros([2, 32, 8]) }),
    "of tokens that there are not": () => ({
      logits: mx.zeros([2, 32, 8]),
      indices: mx.full([2, 32, 8], 384, "uint32"),
    }),
    "of another kind": () => ({ logits: mx.zeros([2, 32, 8]), indices: mx.zeros([2, 32, 8]) }),
  };
  test.each(Object.entries(tensors))("%s", async (_, make) => {
    const folder = at("bad");
    cpSync(targetDir(), folder, { recursive: true });
    mx.scope(() => mx.saveSafetensors(join(folder, "valid/0000000000.safetensors"), new Map(Object.entries(make()))));
    const run = quantizeByDwq({ path: model }, at("x"), { ...settings, targetDir: folder });
    await expect(run).rejects.toMatchObject({
      name: "UserError",
      message: expect.stringContaining("valid/0000000000"),
    });
    rmSync(`${at("x")}.unfinished`, { recursive: true });
  });
});

describe("refusals come before the work", () => {
  test.each<[string, string[], number, RegExp]>([
    ["a target that exists", ["--mlx-path", packed], 2, /exists already/],
    ["a model that is quantized, with none to learn", ["--model", packed], 2, /is quantized already/],
    ["a student that is not", ["--quantized-model", model], 2, /is not quantized/],
    ["a student of too many bits", ["--bits", "8"], 1, /no affine layer with fewer than 8 bits/],
    ["bits that MLX lacks", ["--bits", "7"], 2, /--bits must be one of 2, 3, 4, 5, 6, 8, not 7/],
    ["too little data", ["--batch-size", "200", "--num-samples", "200"], 2, /has 320 samples: a batch of 200/],
    ["samples that fill no batch", ["--num-samples", "1"], 2, /1 sample cannot fill a batch of 2/],
    ["data that is missing", ["--data-path", "nowhere.jsonl"], 3, /nowhere\.jsonl/],
    ["targets without a place", ["--targets-only"], 2, /--targets-only needs a folder/],
    ["a learning rate that learns nothing", ["--learning-rate", "0"], 2, /must be more than 0/],
    ["nothing to go on with", ["--resume"], 3, /there is no work on/],
  ])(
    "%s",
    async (_, words, code, message) => {
      const run = await runCommand([...dwq("refused"), ...words], offline);
      expect(run.problems).toMatch(message);
      expect(run.problems).not.toContain("internal error");
      expect(run.code).toBe(code);
      expect(readdirSync(scratch).filter((name) => name.startsWith("refused"))).toEqual([]);
    },
    30_000,
  );

  test.each<[string, string, RegExp]>([
    ["no JSON", "{", /line 1/],
    ["a chat without messages", '{"messages": []}\n'.repeat(8), /has no message/],
    ["a role that is none", '{"messages": [{"content": "a"}]}\n'.repeat(8), /message 1 of "messages"/],
  ])("%s", async (_, content, message) => {
    const path = at("bad.jsonl");
    writeFileSync(path, content);
    const run = quantizeByDwq({ path: model }, at("y"), { ...settings, numSamples: 2, dataPath: path });
    await expect(run).rejects.toMatchObject({ name: "UserError", message: expect.stringMatching(message) });
  });
});

test("neither a run nor one that is stopped leaves tensors behind", async () => {
  const live: number[] = [];
  for (const name of ["one", "two", "three"]) {
    await quantizeByDwq({ path: model }, at(name), settings);
    live.push(mx.liveHandles());
  }
  expect(new Set(live).size).toBe(1);
  const stopped = quantizeByDwq({ path: model }, at("four"), settings, { signal: AbortSignal.abort() });
  await expect(stopped).rejects.toThrow("stopped");
  expect(mx.liveHandles()).toBe(live[0]!);
}, 60_000);
