/** Tokenizers that were written to GGUF's metadata and read back give the ids that they gave. */
import { afterAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fixture } from "../../../test/parity/fixtures";
import { loadTokenizer } from "../../text/tokenizer";
import { warningsOf } from "../../warnings";
import { tokenizerFields } from "./export-tokenizer";
import type { GgufValue } from "./header";
import { Metadata } from "./metadata";
import { tokenizerFiles } from "./tokenizer";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-gguf-tokenizer-"));
afterAll(() => rmSync(folder, { recursive: true }));

const words = [
  "the",
  "Once upon",
  " a",
  "  time",
  "\n\n",
  "\t",
  "IT'S",
  "it's",
  "12345",
  "3.14",
  "ünïcode",
  "日本",
  "🦊",
  "—",
  "<s>",
  "x=1;",
];

/** A few hundred texts: every two words with every third kind of space between. */
const texts = words.flatMap((left) => words.map((right, i) => left + ["", " ", "\n"][i % 3] + right));

const fixtures = join(import.meta.dir, "../../../test/fixtures");

test.each(["text/byte-fallback", "text/byte-level", "checkpoint"])("%s", async (name) => {
  const before = await loadTokenizer(join(fixtures, name));
  const fields = await tokenizerFields(join(fixtures, name), before.vocabSize + 7, [3]);
  const metadata = new Map(fields.map(([key, [, value]]) => [key, value as GgufValue]));
  expect(metadata.get("tokenizer.ggml.model")).toBe(name.endsWith("fallback") ? "llama" : "gpt2");
  expect(metadata.get("tokenizer.ggml.tokens")).toHaveLength(before.vocabSize + 7);

  const { tokenizer, config } = tokenizerFiles(new Metadata(metadata, "a test"));
  const own = join(folder, name);
  mkdirSync(own, { recursive: true });
  writeFileSync(join(own, "tokenizer.json"), JSON.stringify(tokenizer));
  writeFileSync(join(own, "tokenizer_config.json"), JSON.stringify(config));
  const after = await loadTokenizer(own);
  const [expected, ids] = [await before.encodeBatch(texts), await after.encodeBatch(texts)];
  expect(ids).toEqual(expected);
  expect(ids.map((one) => after.decode(one))).toEqual(expected.map((one) => before.decode(one)));
  expect(after.bosToken).toBe(before.bosToken);
});

/** The metadata of a file with the byte-level vocabulary. */
async function byteLevelMetadata(): Promise<Map<string, GgufValue>> {
  const { model, added_tokens } = await Bun.file(join(fixtures, "text/byte-level/tokenizer.json")).json();
  const special = Object.fromEntries(
    added_tokens.map((token: { content: string; id: number }) => [token.content, token.id]),
  );
  const ids: [string, number][] = Object.entries({ ...model.vocab, ...special });
  const tokens = ids.sort((a, b) => a[1] - b[1]).map(([token]) => token);
  return new Map<string, GgufValue>([
    ["tokenizer.ggml.model", "gpt2"],
    ["tokenizer.ggml.tokens", tokens],
    ["tokenizer.ggml.token_type", tokens.map((token) => (Object.hasOwn(special, token) ? 3 : 1))],
    ["tokenizer.ggml.merges", model.merges.map((merge: string | string[]) => [merge].flat().join(" "))],
  ]);
}

async function encoded(metadata: ReadonlyMap<string, GgufValue>, texts: readonly string[]): Promise<number[][]> {
  const { tokenizer, config } = tokenizerFiles(new Metadata(metadata, "words.gguf"));
  const own = join(folder, "words");
  mkdirSync(own, { recursive: true });
  writeFileSync(join(own, "tokenizer.json"), JSON.stringify(tokenizer));
  writeFileSync(join(own, "tokenizer_config.json"), JSON.stringify(config));
  const codec = await loadTokenizer(own);
  return Promise.all(texts.map((text) => codec.encode(text, { addSpecialTokens: false })));
}

const rows = fixture<[text: string, ids: number[]][]>("gguf-words.json");
const allTexts = rows.map(([text]) => text);

test("a file that says nothing of how words are split: a warning, and llama.cpp's ids", async () => {
  const metadata = await byteLevelMetadata();
  let result: number[][] = [];
  const warnings = await warningsOf(async () => {
    result = await encoded(metadata, allTexts);
  });
  expect(warnings).toEqual([
    "words.gguf: nothing says how the tokenizer splits words (tokenizer.ggml.pre): they are split as llama.cpp does",
  ]);
  expect(result).toEqual(rows.map(([, expected]) => expected));
  metadata.set("tokenizer.ggml.pre", "default");
  expect(await warningsOf(() => encoded(metadata, allTexts))).toEqual([]);
  expect(await encoded(metadata, allTexts)).toEqual(result);
});

/** By these rules, llama.cpp keeps spaces and the digits behind them together before it cuts on; the tokenizers don't. */
const fromRight = ["afmoe", "cohere2moe", "tiny_aya"];

test("digits grouped from the right are apart from the spaces ahead", async () => {
  const metadata = await byteLevelMetadata();
  const tokens = metadata.get("tokenizer.ggml.tokens") as string[];
  for (const rule of fromRight) {
    const [ids] = await encoded(metadata.set("tokenizer.ggml.pre", rule), ["    12345"]);
    const words = ids!.map((id) => tokens[id]);
    expect(words, rule).toEqual(["ĠĠ", "ĠĠ", "1", "2", "3", "4", "5"]);
  }
});

describe("words split by a rule's name have llama.cpp's ids", () => {
  test.each(fixture<[rule: string, hash: string][]>("gguf-rules.json"))("%s", async (rule, hash) => {
    const metadata = (await byteLevelMetadata()).set("tokenizer.ggml.pre", rule);
    const texts = fromRight.includes(rule) ? allTexts.filter((text) => !/\s\s\d/.test(text)) : allTexts;
    const ids = await encoded(metadata, texts);
    expect(createHash("sha256").update(JSON.stringify(ids)).digest("hex").slice(0, 16)).toBe(hash);
  });
});
