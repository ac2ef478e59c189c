/** Data sets and prompt caches with something wrong. */
import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { joined } from "../fuzz/edges";
import { type Case, generate, lora, refused, sound } from "./case";
import { safetensors } from "./checkpoints";

/** A folder with data to train on. */
function dataFolder(folder: string, content: string | Uint8Array, name = "train.jsonl"): string {
  mkdirSync(join(folder, "data"));
  writeFileSync(join(folder, "data", name), content);
  return "data";
}

const deepRows: Case = {
  name: "jsonl-deep",
  right: "a row that nests without end is refused, with its line",
  async check({ folder, run }) {
    const depth = 100_000;
    const row = `{"text":"x","y":${"[".repeat(depth)}${"]".repeat(depth)}}\n`;
    refused(await run(lora(dataFolder(folder, row))), 1, /line 1: it nests deeper/);
  },
};

const nan: Case = {
  name: "jsonl-nan",
  right: "NaN in a row is a number, as Python writes it",
  async check({ folder, run }) {
    const rows = [0, 1, 2, 3].map((i) => `{"text":"line ${i} of the book", "score": NaN}\n`);
    sound(await run(lora(dataFolder(folder, rows.join("")))));
  },
};

const latin1: Case = {
  name: "jsonl-not-utf8",
  right: "bytes that are not UTF-8 are refused, with file and line",
  async check({ folder, run }) {
    const rows = joined(...['{"text":"cafe"}\n', '{"text":"caf\u00e9"}\n'].map((row) => Buffer.from(row, "latin1")));
    refused(await run(lora(dataFolder(folder, rows))), 1, /train\.jsonl, line 2: this is not UTF-8 \(byte 0xe9\)/);
  },
};

const csv: Case = {
  name: "csv-quoted",
  right: "a long quoted cell is read, or refused in words",
  async check({ folder, run }) {
    refused(
      await run(lora(dataFolder(folder, `text\n"${"a".repeat(2_500_000)}"\n`, "train.csv"))),
      1,
      /characters of one kind/,
    );
  },
};

const parquet: Case = {
  name: "parquet-nan",
  right: "a Parquet file whose groups say no number of rows is refused",
  async check({ folder, run }) {
    mkdirSync(join(folder, "data"));
    copyFileSync(join(import.meta.dir, "../fixtures/no-rows.parquet"), join(folder, "data/train.parquet"));
    refused(await run(lora("data")), 1, /cannot be read as Parquet/);
  },
};

const deepName: Case = {
  name: "prompt-cache-deep-name",
  right: "a prompt cache with a name of 50,000 levels is refused at once",
  async check({ folder, run }) {
    const name = Array(50_000).fill("0").join(".");
    const file = safetensors({ [name]: { shape: [1], data: new Float32Array(1) } });
    writeFileSync(join(folder, "x.safetensors"), file);
    const began = performance.now();
    const ran = await run([...generate("demo", "hi", 2), "--prompt-cache-file", "x.safetensors"]);
    refused(ran, 1, /is no prompt cache/);
    if (performance.now() - began > 5000) throw new Error("it took more than 5 s");
  },
};

export const dataCases: readonly Case[] = [deepRows, nan, latin1, csv, parquet, deepName];
