import { expect, test } from "bun:test";
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { supervise } from "../../test/fuzz/supervise";
import { UserError } from "../errors";
import { loadTokenizer } from "./tokenizer";

const fixtures = join(import.meta.dir, "../../test/fixtures/text");

/** A copy of a fixture's tokenizer with other parts. */
async function withParts(parts: object, use: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "mlxlm-panics-"));
  try {
    await cp(join(fixtures, "byte-level"), folder, { recursive: true });
    const json = await Bun.file(join(folder, "tokenizer.json")).json();
    await Bun.write(join(folder, "tokenizer.json"), JSON.stringify({ ...json, ...parts }));
    await use(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

const qwen2 = {
  type: "Sequence",
  pretokenizers: [
    {
      type: "Split",
      pattern: {
        Regex: String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
      },
      behavior: "Isolated",
      invert: false,
    },
    { type: "ByteLevel", add_prefix_space: false, trim_offsets: false, use_regex: false },
  ],
};

test("a run of spaces that is too long for a model's own pattern is refused, long texts are not", async () => {
  await withParts({ normalizer: { type: "NFC" }, pre_tokenizer: qwen2 }, async (folder) => {
    const tokenizer = await loadTokenizer(folder);
    const error = await tokenizer.encode(" ".repeat(10_000_000)).catch((reason) => reason);
    expect(error).toBeInstanceOf(UserError);
    expect(error.message).toContain("a run of more than");
    expect(error.hint).toBe("Cut the text.");
    const text = "some words, 12 numbers\n".repeat(60_000);
    expect(tokenizer.decode(await tokenizer.encode(text))).toBe(text);
  });
}, 60_000);

test("an added token of which the normalizer leaves nothing", async () => {
  const token = { id: 600, content: "\u0000", single_word: false, lstrip: true, rstrip: true, special: true };
  const normalizer = { type: "BertNormalizer", clean_text: true, handle_chinese_chars: false, strip_accents: null };
  const parts = { normalizer: { ...normalizer, lowercase: false }, added_tokens: [{ ...token, normalized: true }] };
  await withParts(parts, async (folder) => {
    const error = await loadTokenizer(folder).catch((reason) => reason);
    expect(error).toBeInstanceOf(UserError);
    expect(error.message).toContain("leaves nothing of the added token");
  });
  await withParts({ ...parts, added_tokens: [{ ...token, normalized: false }] }, async (folder) => {
    expect(await (await loadTokenizer(folder)).encode("é ü")).not.toBeEmpty();
  });
});

test("400 tokenizer.json with something wrong end in words, or in a tokenizer that works", async () => {
  const { sound, refused } = await supervise(join(import.meta.dir, "../../test/fuzz/tokenizers.ts"), 400, 1);
  expect(sound).toBeGreaterThan(100);
  expect(refused).toBeGreaterThan(100);
}, 120_000);
