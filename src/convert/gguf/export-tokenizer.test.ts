/** Tokenizers that were written to GGUF's metadata and read back give the ids that they gave. */
import { afterAll, expect, test } from "bun:test";
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

test("a file that says nothing of how words are split: a warning, and llama.cpp's ids", async () => {
  const { model, added_tokens } = await Bun.file(join(fixtures, "text/byte-level/tokenizer.json")).json();
  const special = Object.fromEntries(
    added_tokens.map((token: { content: string; id: number }) => [token.content, token.id]),
  );
  const ids: [string, number][] = Object.entries({ ...model.vocab, ...special });
  const tokens = ids.sort((a, b) => a[1] - b[1]).map(([token]) => token);
  const metadata = new Map<string, GgufValue>([
    ["tokenizer.ggml.model", "gpt2"],
    ["tokenizer.ggml.tokens", tokens],
    ["tokenizer.ggml.token_type", tokens.map((token) => (Object.hasOwn(special, token) ? 3 : 1))],
    ["tokenizer.ggml.merges", model.merges.map((merge: string | string[]) => [merge].flat().join(" "))],
  ]);
  const encoded = async () => {
    const { tokenizer, config } = tokenizerFiles(new Metadata(metadata, "words.gguf"));
    const own = join(folder, "unsaid");
    mkdirSync(own, { recursive: true });
    writeFileSync(join(own, "tokenizer.json"), JSON.stringify(tokenizer));
    writeFileSync(join(own, "tokenizer_config.json"), JSON.stringify(config));
    return (await loadTokenizer(own)).encodeBatch(rows.map(([text]) => text));
  };
  const rows = fixture<[text: string, ids: number[]][]>("gguf-words.json");
  let result: number[][] = [];
  const warnings = await warningsOf(async () => {
    result = await encoded();
  });
  expect(warnings).toEqual([
    "words.gguf: nothing says how the tokenizer splits words (tokenizer.ggml.pre): they are split as llama.cpp does",
  ]);
  expect(result).toEqual(rows.map(([, expected]) => expected));
  metadata.set("tokenizer.ggml.pre", "default");
  expect(await warningsOf(encoded)).toEqual([]);
  expect(await encoded()).toEqual(result);
});
