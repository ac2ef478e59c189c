/** `mlxlm perplexity` against mlx-lm's numbers, and what it says to bad data. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type LoadedModel, loadModel } from "../src/convert/load";
import { openDataset } from "../src/data/dataset";
import { demoFolder } from "../src/demo/folder";
import {
  measurePerplexity,
  type Perplexity,
  type PerplexityOptions,
  type SamplingOptions,
  sampleTokens,
} from "../src/evaluate/perplexity";
import { NumpyRandom, PythonRandom } from "../src/mersenne";
import * as mx from "../src/mlx";

const fixtures = join(import.meta.dir, "fixtures/evaluate");
const numbers = JSON.parse(readFileSync(join(fixtures, "numbers.json"), "utf8"));
const main = join(import.meta.dir, "../cmd/main.ts");
const scratch = mkdtempSync(join(tmpdir(), "mlxlm-perplexity-"));
let demo: LoadedModel;

/** What mlx-lm measured. */
interface Measured extends SamplingOptions, PerplexityOptions, Perplexity {
  data: string;
  tokens: number[][];
}

beforeAll(async () => {
  demo = await loadModel(demoFolder());
});
afterAll(() => {
  demo.model.dispose();
  rmSync(scratch, { recursive: true });
});

async function perplexity(...words: string[]) {
  const command = [process.execPath, main, "perplexity", "--model", "demo", ...words];
  const env = { ...process.env, HF_HUB_OFFLINE: "1" };
  const child = Bun.spawn(command, { stdout: "pipe", stderr: "pipe", env });
  const [out, problems, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { out, problems, code };
}

describe("Python's random numbers", () => {
  test.each(numbers.random as Record<string, never>[])("random.Random of case %#", (drawn) => {
    const random = new PythonRandom(drawn.seed!);
    const range = (count: number) => Array.from({ length: count }, (_, i) => i);
    const chosen = new Uint32Array(9);
    const items = range(12);
    expect(random.random()).toBe(drawn.random!);
    expect(random.sample(range(10), 5)).toEqual(drawn.sample!);
    expect(random.sample(range(100_000), 7)).toEqual(drawn.sample_of_many!);
    random.choices(17, chosen);
    expect([...chosen]).toEqual(drawn.choices!);
    expect([1, 2, 3, 1000, 2 ** 31].map((count) => random.below(count))).toEqual(drawn.below!);
    random.shuffle(items);
    expect(items).toEqual(drawn.shuffled!);
    expect(() => random.sample([1, 2], 3)).toThrow("3 of 2 items");
  });

  test("NumPy's permutation", () => {
    for (const { seed, count, order } of numbers.permutations) {
      expect(new NumpyRandom(seed).permutation(count)).toEqual(order);
    }
  });
});

describe("perplexity", () => {
  test.each(numbers.perplexity as Measured[])("of $data is mlx-lm's", async (one) => {
    const { model, tokenizer } = demo;
    const rows = (await openDataset(join(fixtures, one.data))).get("train")!;
    const sampled = await sampleTokens(rows, tokenizer, one);
    expect(sampled).toEqual(one.tokens);
    const result = (await measurePerplexity(model, sampled, one))!;
    expect(result.perplexity / one.perplexity).toBeCloseTo(1, 5);
    expect(result.standard_error / one.standard_error).toBeCloseTo(1, 5);
  });

  test("leaves no tensor behind", async () => {
    const { model } = demo;
    const data = numbers.perplexity[1].tokens.slice(0, 4);
    await measurePerplexity(model, data, { batchSize: 2 });
    const before = mx.liveHandles();
    for (let n = 0; n < 5; n++) await measurePerplexity(model, data, { batchSize: 2 });
    expect(mx.liveHandles()).toBe(before);
    const stopped = AbortSignal.abort();
    expect(await measurePerplexity(model, data, { batchSize: 2, signal: stopped })).toBeNull();
    expect(mx.liveHandles()).toBe(before);
  });

  test("prints mlx-lm's block", async () => {
    const { perplexity: value, standard_error: error, ...one } = numbers.perplexity[0];
    const words = ["--num-samples", `${one.numSamples}`, "--sequence-length", "64", "--batch-size", "3"];
    const { out, code } = await perplexity("--data-path", join(fixtures, "texts"), ...words);
    const lines = out.split("\n");
    expect(lines).toContain("Loading model from demo...");
    expect(lines).toContain(`  Loaded ${one.numSamples} samples`);
    expect(out).toContain(`  Processed 1/3 batches...\r  Processed 2/3 batches...\r  Processed 3/3 batches...\r\n`);
    const printed = lines.find((line) => line.startsWith("Perplexity:"));
    const [, perplexityThere, errorThere] = /^Perplexity: (\d+\.\d{3}) ± (\d+\.\d{3})$/.exec(printed!)!;
    // Sums in another order show in the last digit.
    expect(Math.abs(Number(perplexityThere) / value - 1)).toBeLessThan(1e-5);
    expect(Math.abs(Number(errorThere) / error - 1)).toBeLessThan(1e-5);
    expect(out).toMatch(/\nEvaluation time: \d+\.\d\d seconds\nPeak memory: \d+\.\d\d GB\nTokens per second: \d+\n/);
    expect(out).toEndWith(`\nDataset statistics:\n  Total samples: ${one.numSamples}\n  Total tokens: 512\n`);
    expect(code).toBe(0);
  });

  test("--json gives one object; -1 takes all", async () => {
    const { out, code } = await perplexity("--data-path", join(fixtures, "chats"), "--num-samples", "-1", "--json");
    const result = JSON.parse(out);
    expect(result.total_samples).toBeGreaterThan(0);
    expect(result.total_tokens).toBe(result.total_samples * 512);
    expect(result.perplexity).toBeGreaterThan(1);
    expect(code).toBe(0);
  });

  test.each([
    ["missing.jsonl", null, 3, /missing\.jsonl/],
    ["broken.jsonl", '{"text": "a"}\n{"text": \n', 1, /broken\.jsonl, line 2: this is no JSON/],
    ["list.jsonl", "[1]\n", 1, /list\.jsonl, line 1: a row must be an object/],
    ["columns.jsonl", '{"question": "a"}\n', 1, /the columns question, and none that mlxlm knows/],
    ["short.jsonl", '{"text": "a"}\n', 2, /fewer than one row of 512/],
    ["not.parquet", "hello, this is no parquet file", 1, /not\.parquet cannot be read as Parquet/],
    ["cut.parquet", "PAR1PAR1", 1, /cut\.parquet cannot be read as Parquet/],
  ])("%s is an error", async (name, text, code, message) => {
    const path = join(scratch, name);
    if (text !== null) writeFileSync(path, text);
    const run = await perplexity("--data-path", path);
    expect(run.problems).toMatch(message);
    expect(run.problems).not.toContain("internal error");
    expect(run.code).toBe(code);
  });
});

describe("rows of Parquet files", () => {
  test.each(["snappy", "zstd", "none"])("compressed with %s", async (compression) => {
    const path = join(fixtures, `table-${compression}.parquet`);
    const rows = (await openDataset(path)).get("train")!;
    expect(rows.columns).toEqual(["name", "count", "score", "choices", "nested", "truth"]);
    expect([...rows.floats].sort()).toEqual(["nested.weight", "score"]);
    const expected = [
      { name: "a", count: 1, score: 1, choices: ["x", "y"], nested: { weight: [1], id: 1 }, truth: true },
      { name: "b", count: "9007199254740993", score: 2.5, choices: [], nested: { weight: [], id: 2 }, truth: false },
      { name: null, count: -3, score: null, choices: null, nested: null, truth: null },
    ];
    expect(await rows.all()).toEqual(expected as never);
    expect([await rows.at(2), await rows.at(0)]).toEqual([expected[2], expected[0]] as never);
    expect(rows.at(3)).rejects.toThrow("no row 3");
  });

  test("damaged at any byte they are errors, never crashes", async () => {
    const whole = readFileSync(join(fixtures, "table-snappy.parquet"));
    let refused = 0;
    for (let at = 0; at < whole.length; at += 7) {
      const path = join(scratch, "damaged.parquet");
      const bytes = Buffer.from(whole);
      bytes[at]! ^= 0xff;
      writeFileSync(path, bytes);
      try {
        await (await openDataset(path)).get("train")!.all();
      } catch (error) {
        expect((error as Error).name).toBe("UserError");
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(10);
  });
});
