/** Tokenizers that are neither byte-level nor llama.cpp's SentencePiece, against llama.cpp's own ids. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fixture } from "../../../test/parity/fixtures";
import { rwkvFile } from "../../text/rwkv-vocabulary";
import { loadTokenizer } from "../../text/tokenizer";
import type { GgufValue } from "./header";
import { Metadata } from "./metadata";
import { tokenizerFiles } from "./tokenizer";

interface Described {
  model: string;
  tokens: string[];
  types: number[];
  scores?: number[];
  merges?: string[];
  flags: Record<string, boolean>;
  texts: [text: string, ids: number[]][];
}

const folder = mkdtempSync(join(tmpdir(), "mlxlm-words-"));
afterAll(() => rmSync(folder, { recursive: true }));

function metadataOf({ model, tokens, types, scores, merges, flags }: Described): Map<string, GgufValue> {
  const fields: Record<string, GgufValue | undefined> = {
    ...{ model, tokens, token_type: types, scores, merges, pre: "default" },
    ...{ eos_token_id: 1, unknown_token_id: 2, padding_token_id: 0, ...flags },
  };
  const given = Object.entries(fields).filter(([, value]) => value !== undefined);
  return new Map(given.map(([key, value]) => [`tokenizer.ggml.${key}`, value as GgufValue]));
}

const all = fixture<[string, Described][]>("gguf-tokenizers.json");

describe.each(all)("%s", (name, described) => {
  test("gives llama.cpp's tokens", async () => {
    const { tokenizer, config, rwkv } = tokenizerFiles(new Metadata(metadataOf(described), "file.gguf"));
    const own = mkdtempSync(join(folder, "tokenizer-"));
    if (tokenizer) writeFileSync(join(own, "tokenizer.json"), JSON.stringify(tokenizer));
    if (rwkv) writeFileSync(join(own, rwkvFile), rwkv);
    writeFileSync(join(own, "tokenizer_config.json"), JSON.stringify(config));
    const loaded = await loadTokenizer(own);
    for (const [text, ids] of described.texts) {
      expect(await loaded.encode(text, { addSpecialTokens: false }), `${name}: ${JSON.stringify(text)}`).toEqual(ids);
    }
  });
});

test("a tokenizer that names no unknown token is refused", () => {
  for (const [, described] of all.filter(([, { model }]) => model === "t5" || model === "bert")) {
    const metadata = metadataOf(described);
    metadata.delete("tokenizer.ggml.unknown_token_id");
    expect(() => tokenizerFiles(new Metadata(metadata, "file.gguf"))).toThrow("names no unknown token");
  }
});

test("a tokenizer of another kind is refused with those that are read", () => {
  const metadata = metadataOf({ ...all[0]![1], model: "plamo2" });
  expect(() => tokenizerFiles(new Metadata(metadata, "file.gguf"))).toThrow(
    'of the kind "plamo2"; mlxlm reads gpt2, llama, gemma4, t5, bert, rwkv',
  );
});
