/** Datasets and their batches, as mlx-lm reads and draws them; and what bad data say. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hubEnvironment } from "../../../test/hub-environment";
import { fixture } from "../../../test/parity/fixtures";
import { ExitCode, UserError } from "../../errors";
import { NumpyRandom } from "../../mersenne";
import { loadTokenizer, type Tokenizer } from "../../text/tokenizer";
import { resolveSettings, type Settings } from "../settings";
import { type Dataset, datasetFacts, iterateBatches, loadDatasets } from ".";

type Row = Record<string, unknown>;
type Batch = [tokens: number[][], lengths: [number, number][]];

interface Case {
  kind: string | null;
  options: Row;
  /** Of training, validation and test, drawn in this order. */
  batches: [Batch[], Batch[], Batch[]];
}

const { rows, cases } = fixture<{ rows: Record<string, Row[]>; cases: Case[] }>("tune-data.json");
const table = readFileSync(join(import.meta.dir, "../../../test/fixtures/tune-chats.parquet"));
const hub = hubEnvironment();
const scratch = mkdtempSync(join(tmpdir(), "mlxlm-data-"));
afterAll(() => rmSync(scratch, { recursive: true }));

let tokenizer: Tokenizer;
beforeAll(async () => {
  tokenizer = await loadTokenizer(join(import.meta.dir, "../../../test/fixtures/checkpoint"));
});

let folders = 0;

function folderWith(files: Record<string, string | Uint8Array | readonly Row[]>): string {
  const folder = join(scratch, `${folders++}`);
  mkdirSync(folder);
  for (const [name, content] of Object.entries(files)) {
    const text = Array.isArray(content) ? content.map((row) => `${JSON.stringify(row)}\n`).join("") : content;
    writeFileSync(join(folder, name), text as string | Uint8Array);
  }
  return folder;
}

const settings = (given: Row): Settings => resolveSettings({ train: true, ...given });

const tokensOf = ({ length, at }: Dataset) => Array.from({ length }, (_, i) => [...at(i).tokens]);

describe("batches are mlx-lm's", () => {
  test.each(cases.map((one) => [one.kind, one.options, one] as const))("%s %j", async (kind, options, { batches }) => {
    const files = Object.entries(rows).map(([name, content]) => [`${name}.jsonl`, content]);
    const named = kind === null ? [] : ["train", "valid", "test"].map((name) => [`${name}.jsonl`, rows[kind]]);
    const folder = folderWith(Object.fromEntries([...files, ...named]));
    const datasets = [options.hf_dataset ?? []].flat() as Row[];
    const hf_dataset = datasets.map((one) => ({
      ...one,
      path: "json",
      config: { data_files: join(folder, `${one.path}.jsonl`) },
    }));
    const given = { ...options, ...(kind === null ? { hf_dataset } : {}), data: folder, test: true };
    const { train, valid, test } = await loadDatasets(settings(given), tokenizer);
    const random = new NumpyRandom(3);
    const drawn = [train, valid, test].map((dataset, i) => {
      const found: Batch[] = [];
      for (const batch of iterateBatches(dataset, { batchSize: 2, maxSeqLength: 48, random, loop: i === 0 })) {
        const [count, length] = batch.shape;
        const row = (at: number) => [...batch.tokens.subarray(at * length, (at + 1) * length)];
        const pair = (at: number): [number, number] => [batch.lengths[2 * at]!, batch.lengths[2 * at + 1]!];
        const indices = Array.from({ length: count }, (_, at) => at);
        found.push([indices.map(row), indices.map(pair)]);
        if (i === 0 && found.length === 5) break;
      }
      return found;
    });
    expect(drawn).toEqual(batches);
  });
});

describe("the same data", () => {
  const texts = rows.text!;
  const chats = async () => {
    const folder = folderWith({ "train.jsonl": rows.chat! });
    return tokensOf((await loadDatasets(settings({ data: folder }), tokenizer)).train);
  };

  test("as JSON, CSV and JSON Lines give the same tokens; a lone file is for training", async () => {
    const csv = `text\n${texts.map(({ text }) => `"${text}"\n`).join("")}`;
    const folder = folderWith({ "train.csv": csv, "valid.json": JSON.stringify(texts), "test.jsonl": texts });
    const { train, valid, test } = await loadDatasets(settings({ data: folder, test: true }), tokenizer);
    expect(train.length).toBe(texts.length);
    expect(tokensOf(valid)).toEqual(tokensOf(train));
    expect(tokensOf(test)).toEqual(tokensOf(train));
    expect([train.where(4), valid.where(4), test.where(4)]).toEqual([
      `${folder}/train.csv, line 6`,
      `${folder}/valid.json, row 5`,
      `${folder}/test.jsonl, line 5`,
    ]);
    const alone = await loadDatasets(settings({ data: join(folder, "train.csv") }), tokenizer);
    expect(tokensOf(alone.train)).toEqual(tokensOf(train));
    expect(alone.valid.length).toBe(0);
  });

  test("as Parquet, in a folder as the hub has them", async () => {
    const folder = folderWith({ "train-00000-of-00001.parquet": table, "validation-00000-of-00001.parquet": table });
    const { train, valid } = await loadDatasets(settings({ data: folder }), tokenizer);
    expect(tokensOf(train)).toEqual(await chats());
    expect(tokensOf(valid)).toEqual(tokensOf(train));
    expect(train.where(1)).toBe(`${folder}/train-00000-of-00001.parquet, row 2`);
  });

  test("from the hub, by name or as parts", async () => {
    const files = { "default/train/0000.parquet": table, "default/validation/0000.parquet": table };
    hub.serve({ "org/name": { isDataset: true, files, large: Object.keys(files) } });
    const stages: string[] = [];
    const named = await loadDatasets(settings({ data: "org/name" }), tokenizer, {
      onStage: (line) => stages.push(line),
    });
    const whole = await chats();
    expect(stages).toEqual(["Loading Hugging Face dataset org/name."]);
    expect([tokensOf(named.train), tokensOf(named.valid), tokensOf(named.test)]).toEqual([whole, whole, []]);
    const hf_dataset = [
      { path: "org/name", train_split: "train[:2]", valid_split: "validation[-1:]" },
      { path: "org/name", config: { name: "default" } },
    ];
    const parts = await loadDatasets(settings({ hf_dataset }), tokenizer);
    expect(tokensOf(parts.train)).toEqual([...whole.slice(0, 2), ...whole.slice(0, 7)]);
    expect(tokensOf(parts.valid)).toEqual([whole[8]!, whole[8]!]);
    await expect(loadDatasets(settings({ data: "org/other" }), tokenizer)).rejects.toThrow(/org\/other/);
  });
});

describe("bad data say where and what", () => {
  const chat = { messages: [{ role: "user", content: "a" }] };
  test.each<[string, string, Row, RegExp]>([
    ["no JSON", '{"text": "a"}\n\n{"text": "b"', {}, /train\.jsonl, line 3: this is no JSON/],
    ["a list", '{"text": "a"}\n[1]\n', {}, /train\.jsonl, line 2: a row must be an object, not \[1\]/],
    ["no known fields", '{"txt": "a"}', {}, /line 1: a record needs one of: .* It has txt/],
    ["a number", '{"text": "a"}\n{"text": 5}', {}, /line 2: "text" must be a text, but is 5/],
    ["a field that lacks", '{"text": "a"}\n{"test": "b"}', {}, /line 2: "text" must be a text, but is missing/],
    ["no completion", '{"prompt": "a", "completion": "b"}\n{"prompt": "c"}', {}, /line 2: "completion" must be/],
    ["messages as text", '{"messages": "hello"}', {}, /line 1: "messages" must be a list of messages, but is "hello"/],
    ["no messages", `${JSON.stringify(chat)}\n{"messages": []}`, {}, /line 2: "messages" has no message/],
    [
      "two rows, each in its way",
      '{"messages": [{"role": "user", "content": {"a": 1}}]}\n{"messages": []}',
      {},
      /line [12]: /,
    ],
    ["no role", '{"messages": [{"role": "user", "content": "a"}, {"content": "b"}]}', {}, /message 2 .* a role/],
    ["no message", '{"messages": [null]}', {}, /message 1 of "messages" must be an object/],
    ["tools", JSON.stringify({ ...chat, tools: "x" }), {}, /line 1: "tools" must be a list of functions, but is "x"/],
    ["masked texts", '{"text": "a"}', { mask_prompt: true }, /no prompts to mask/],
    ["nothing", "\n", {}, /there is no train set in .*, or it is empty/],
    ["deep nesting", `{"text": ${"[".repeat(100_000)}`, {}, /line 1: this is no JSON/],
  ])("%s", async (_, text, given, message) => {
    const data = folderWith({ "train.jsonl": text });
    const error = await loadDatasets(settings({ data, ...given }), tokenizer).catch((thrown) => thrown);
    expect(error).toBeInstanceOf(UserError);
    expect(error.message).toMatch(message);
    expect(error.hint).toBeTruthy();
  });

  test("a bad line anywhere is found before training, the first one of many", async () => {
    const lines = Array.from({ length: 500 }, (_, i) => JSON.stringify({ text: i === 200 || i === 420 ? i : "a" }));
    const data = folderWith({ "train.jsonl": lines.join("\n") });
    await expect(loadDatasets(settings({ data }), tokenizer)).rejects.toThrow('line 201: "text" must be');
  });

  test.each<[Row, RegExp]>([
    [{ data: "./nowhere/at all" }, /there is no dataset .\/nowhere\/at all/],
    [{ hf_dataset: { path: "./nowhere" } }, /there is no dataset/],
    [{ hf_dataset: { path: "json" } }, /no file is named/],
    [{ hf_dataset: { path: "json", config: { data_files: "nowhere.jsonl" } } }, /there is no file/],
  ])("%j is not there", async (given, message) => {
    await expect(loadDatasets(settings(given), tokenizer)).rejects.toThrow(message);
  });

  test("a set of the hub without a part for the test", async () => {
    const data_files = join(folderWith({ "a.jsonl": rows.text! }), "a.jsonl");
    const given = { train: false, test: true, hf_dataset: { path: "json", config: { data_files } } };
    await expect(loadDatasets(settings(given), tokenizer)).rejects.toThrow("does not say which part of json");
  });

  test("fewer rows than a batch has", async () => {
    const { train } = await loadDatasets(settings({ data: folderWith({ "train.jsonl": rows.text! }) }), tokenizer);
    const batches = iterateBatches(train, { batchSize: 10, maxSeqLength: 64, random: new NumpyRandom(0) });
    expect(() => batches.next()).toThrow("the dataset has 9 samples, fewer than a batch of 10");
  });

  test("a signal ends it", async () => {
    const data = folderWith({ "train.jsonl": rows.text! });
    const loading = loadDatasets(settings({ data }), tokenizer, { signal: AbortSignal.abort() });
    await expect(loading).rejects.toMatchObject({ code: ExitCode.interrupted });
  });
});

describe("what is known of a dataset", () => {
  const dataset = (samples: [length: number, offset: number][]): Dataset => ({
    length: samples.length,
    at: (i) => ({ tokens: new Int32Array(samples[i]![0]), offset: samples[i]![1] }),
    where: (i) => `${i}`,
  });

  test("lengths, and what is lost", () => {
    const facts = datasetFacts(
      dataset([
        [100, 0],
        [3, 1],
        [32, 0],
        [40, 16],
        [33, 33],
        [200, 64],
      ]),
      64,
    );
    expect(facts).toEqual({
      rows: 6,
      tokens: 408,
      shortest: 3,
      median: 40,
      longest: 200,
      truncated: 2,
      tokens_cut: 36 + 136,
      without_loss: 2,
      histogram: [
        { up_to: 32, rows: 2 },
        { up_to: 64, rows: 2 },
        { up_to: 128, rows: 1 },
        { up_to: 256, rows: 1 },
      ],
    });
  });

  test("of none", () => {
    expect(datasetFacts(dataset([]), 64)).toMatchObject({ rows: 0, tokens: 0, longest: 0, histogram: [] });
  });
});
