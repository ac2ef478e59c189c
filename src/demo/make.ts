/**
 * Makes the demo model with mlxlm's own commands: a tokenizer, a Llama with random weights and a folder of text; then
 * `lora --train --fine-tune-type full`, `fuse`, `convert`. `bun run demo` runs it: three minutes on an H200, some 13 hours
 * on two CPU cores. Python with the `tokenizers` package is needed for the tokenizer alone.
 *
 *   bun src/demo/make.ts [--output DIR] [--work DIR] [--keep-tokenizer] [--only start|data|train|finish]
 */
import { cpSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import * as mx from "../mlx";
import { createModel } from "../models";
import { loadTokenizer, type Tokenizer } from "../text/tokenizer";
import { documents } from "./corpus";
import { config, writeConfig } from "./shape";

/** The seed of the training text, and of the weights. */
const seed = 1;

/** How many documents the tokenizer is trained on. */
const tokenizerDocuments = 30_000;

/** How many records there are to train on and to validate with, and how many tokens one has at most. */
const [trainRecords, validRecords, recordTokens] = [40_000, 640, 320];

const files = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];

async function trainTokenizer(path: string): Promise<void> {
  const source = documents(seed + 1);
  const text = Array.from({ length: tokenizerDocuments }, () => source.next().value).join("");
  const python = Bun.spawn([process.env.DEMO_PYTHON ?? "python3", join(import.meta.dir, "tokenizer.py"), path], {
    stdin: new Blob([text]),
    stderr: "inherit",
  });
  if ((await python.exited) !== 0)
    throw new Error("training the tokenizer failed: Python needs the tokenizers package");
}

/** The folder that the training starts from: small files, and random weights. */
async function makeStart(folder: string): Promise<void> {
  await writeConfig(folder);
  mx.random.seed(seed);
  const model = await createModel(config, folder);
  mx.eval(model.parameters());
  mx.saveSafetensors(join(folder, "model.safetensors"), new Map(model.namedParameters()), { format: "mlx" });
  model.dispose();
}

/** Records of JSON Lines: whole documents, as many as fit. */
async function writeRecords(
  path: string,
  tokenizer: Tokenizer,
  source: Iterator<string>,
  count: number,
): Promise<void> {
  const out = Bun.file(path).writer();
  let text = "";
  let tokens = 0;
  for (let written = 0; written < count; ) {
    const texts = Array.from({ length: 256 }, () => source.next().value as string);
    const encoded = await tokenizer.encodeBatch(texts, { addSpecialTokens: false });
    for (let i = 0; i < texts.length && written < count; i++) {
      const { length } = encoded[i]!;
      if (tokens > 0 && tokens + length > recordTokens) {
        // A line's end behind the last turn would get an end of text of its own.
        out.write(`${JSON.stringify({ text: text.trimEnd() })}\n`);
        written += 1;
        [text, tokens] = ["", 0];
      }
      text += texts[i]!;
      tokens += length;
    }
  }
  await out.end();
}

function mlxlm(...args: string[]): void {
  const command = process.env.MLXLM
    ? [process.env.MLXLM]
    : [process.execPath, join(import.meta.dir, "../../cmd/main.ts")];
  const { exitCode } = Bun.spawnSync([...command, ...args], { stdio: ["ignore", "inherit", "inherit"] });
  if (exitCode !== 0) throw new Error(`mlxlm ${args[0]} ended with ${exitCode}`);
}

const { values } = parseArgs({
  options: {
    output: { type: "string", default: join(import.meta.dir, "model") },
    work: { type: "string" },
    "keep-tokenizer": { type: "boolean", default: false },
    only: { type: "string" },
  },
});
const { output, only } = values;
const work = values.work ?? mkdtempSync(join(tmpdir(), "mlxlm-demo-"));
const [start, data, trained, whole] = ["start", "data", "trained", "whole"].map((name) => join(work, name)) as [
  string,
  string,
  string,
  string,
];
const wanted = (step: string) => only === undefined || only === step;

if (wanted("start")) {
  mkdirSync(start, { recursive: true });
  if (values["keep-tokenizer"]) cpSync(join(output, "tokenizer.json"), join(start, "tokenizer.json"));
  else await trainTokenizer(join(start, "tokenizer.json"));
  await makeStart(start);
}
if (wanted("data")) {
  mkdirSync(data, { recursive: true });
  const tokenizer = await loadTokenizer(start);
  await writeRecords(join(data, "train.jsonl"), tokenizer, documents(seed), trainRecords);
  await writeRecords(join(data, "valid.jsonl"), tokenizer, documents(seed + 2), validRecords);
}
if (wanted("train")) {
  const settings = join(import.meta.dir, "training.yaml");
  mlxlm("lora", "--config", settings, "--model", start, "--data", data, "--adapter-path", trained);
}
if (wanted("finish")) {
  const packed = join(work, "packed");
  mlxlm("fuse", "--model", start, "--adapter-path", trained, "--save-path", whole);
  mlxlm("convert", "--hf-path", whole, "-q", "--q-bits", "8", "--mlx-path", packed);
  mkdirSync(output, { recursive: true });
  for (const name of [...files, "config.json", "model.safetensors"]) cpSync(join(packed, name), join(output, name));
}
if (values.work === undefined) rmSync(work, { recursive: true });
