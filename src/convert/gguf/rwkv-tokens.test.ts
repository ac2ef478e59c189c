/** RWKV's tokenizer, of its own file and of GGUF files. What llama.cpp makes of one stands in word-models.test.ts. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { rwkvFile, rwkvText, rwkvTokens } from "../../text/rwkv-vocabulary";
import { loadTokenizer } from "../../text/tokenizer";
import type { GgufValue } from "./header";
import { Metadata } from "./metadata";
import { rwkvTokenizer } from "./rwkv-tokens";
import { tokenizerFiles } from "./tokenizer";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-rwkv-"));
afterAll(() => rmSync(folder, { recursive: true }));

const end = "<|rwkv_tokenizer_end_of_text|>";
const config = {
  tokenizer_class: "RwkvTokenizer",
  eos_token: end,
  added_tokens_decoder: { 0: { content: end, special: true, single_word: false, lstrip: false, rstrip: false } },
};

/** Bytes as Python writes them, then longer tokens, some the beginnings of others. */
const words = [
  "'th'",
  "'the'",
  "' the'",
  `"'s"`,
  "b'\\xe6\\x97'",
  "'\\n\\n'",
  "'日本'",
  "'a\\\\b'",
  "'    '",
  "'\\u00e9t'",
];
const byte = (value: number) =>
  value < 128 ? `'\\x${value.toString(16).padStart(2, "0")}' 1` : `b'\\x${value.toString(16)}' 1`;
const lengths = [2, 3, 4, 2, 2, 2, 6, 3, 4, 3];
const lines = [
  ...Array.from({ length: 256 }, (_, value) => `${value + 1} ${byte(value)}`),
  ...words.map((word, i) => `${257 + i} ${word} ${lengths[i]}`),
];

async function tokenizerOf(text: string) {
  const own = mkdtempSync(join(folder, "own-"));
  writeFileSync(join(own, rwkvFile), text);
  writeFileSync(join(own, "tokenizer_config.json"), JSON.stringify(config));
  return { own, tokenizer: await loadTokenizer(own) };
}

const whole = `${lines.join("\n")}\n`;

test("the longest token that fits is taken, in bytes", async () => {
  const { tokenizer } = await tokenizerOf(whole);
  const id = (word: string) => 257 + words.indexOf(word);
  expect(await tokenizer.encode("the the's")).toEqual([id("'the'"), id("' the'"), id(`"'s"`)]);
  expect(await tokenizer.encode("日本日")).toEqual([id("'日本'"), id("b'\\xe6\\x97'"), 0xa5 + 1]);
  expect(await tokenizer.encode(`th${end}`)).toEqual([id("'th'"), 0]);
  expect(tokenizer.eosTokenIds).toContain(0);
});

test("it is greedy search, whatever the text", async () => {
  const { tokenizer } = await tokenizerOf(whole);
  const tokens = [...rwkvTokens(whole, "file")].sort(([, a], [, b]) => b.length - a.length);
  const greedy = (text: string) => {
    const ids: number[] = [];
    for (let left = Buffer.from(text); left.length > 0; ) {
      const [id, bytes] = tokens.find(([, bytes]) => left.subarray(0, bytes.length).equals(bytes))!;
      ids.push(id);
      left = left.subarray(bytes.length);
    }
    return ids;
  };
  const part = fc.constantFrom("th", "the", " the", "'s", "日", "本", "\n", "a\\b", " ", "é", "t", "🦊", "^", "]", "-");
  await fc.assert(
    fc.asyncProperty(fc.array(part, { maxLength: 20 }), async (parts) => {
      const text = parts.join("");
      const ids = await tokenizer.encode(text);
      expect(ids).toEqual(greedy(text));
      expect(tokenizer.decode(ids)).toBe(text);
    }),
    { numRuns: 200 },
  );
});

test("to a GGUF file and back", async () => {
  const { own, tokenizer } = await tokenizerOf(whole);
  const { kind, vocabulary } = (await rwkvTokenizer(own, 300, config))!;
  const metadata = new Metadata(
    new Map<string, GgufValue>([
      ...kind.map(([key, [, value]]): [string, GgufValue] => [key, value as string]),
      ["tokenizer.ggml.tokens", vocabulary.tokens],
      ["tokenizer.ggml.token_type", vocabulary.types],
      ["tokenizer.ggml.eos_token_id", 0],
      ["tokenizer.chat_template", "rwkv-world"],
    ]),
    "file.gguf",
  );
  const files = tokenizerFiles(metadata);
  expect(files.config).toMatchObject({ eos_token: end, chat_template: undefined });
  const { tokenizer: again } = await tokenizerOf(files.rwkv!);
  const text = "the the's 日本 a\\b \0\n\n";
  expect(await again.encode(text)).toEqual(await tokenizer.encode(text));
  expect(rwkvTokens(rwkvText(rwkvTokens(whole, "a")), "b")).toEqual(rwkvTokens(whole, "a"));
});

test.each([
  ["x 'a' 1", "line 267 is no id, token and length"],
  ["267 'a 1", "line 267 is no id, token and length"],
  ["267 '\\q' 1", "line 267 is no id, token and length"],
  ["267 '\\ud800' 3", "line 267 is no id, token and length"],
  ["267 'ab' 3", "the token of line 267 has 2 bytes, not 3"],
  ["267 'the' 3", "line 267 is there twice"],
  ["266 'new' 3", "line 267 is there twice"],
  [`267 '${"x".repeat(1001)}' 1001`, "a token has 1001 bytes"],
])("a broken line is refused: %s", async (line, problem) => {
  await expect(tokenizerOf(`${whole}${line}\n`)).rejects.toThrow(problem);
});

test("a byte without a token is refused", async () => {
  await expect(tokenizerOf(lines.slice(1).join("\n"))).rejects.toThrow("the byte 0 has no token");
});
