import { describe, expect, test } from "bun:test";
import { defect, modelType, outline, TokenizerJson } from "./tokenizer-json";

const bpe = { type: "BPE", vocab: { a: 0, "##b": 1, "a##b": 2 }, merges: [["a", "##b"]] };
const check = (parts: Record<string, unknown>) => defect(TokenizerJson.parse({ model: bpe, ...parts }));

/** SentencePiece's table: a trie of one node, then its text. */
const charsMap = (trieBytes: number, ...text: number[]) => {
  const bytes = Buffer.alloc(8 + text.length);
  bytes.writeUInt32LE(trieBytes, 0);
  bytes.set(text, 8);
  return bytes.toString("base64");
};

describe("what the native library would not survive", () => {
  const precompiled = (precompiled_charsmap: unknown) => ({ type: "Precompiled", precompiled_charsmap });
  test.each([
    ["no text", undefined],
    ["not base64", "?"],
    ["too short", "AAAA"],
    ["an empty trie", charsMap(0)],
    ["a trie beyond the end", charsMap(400)],
    ["half a trie node", charsMap(3)],
    ["text that is not UTF-8", charsMap(4, 0xff)],
  ])("a charsmap: %s", (_, map) => {
    expect(check({ normalizer: precompiled(map) })).toBe("precompiled_charsmap is damaged");
    const nested = { type: "Sequence", normalizers: [{ type: "NFC" }, precompiled(map)] };
    expect(check({ normalizer: { type: "Sequence", normalizers: [nested] } })).toBe("precompiled_charsmap is damaged");
  });

  test("a sound charsmap passes", () => {
    expect(check({ normalizer: precompiled(charsMap(4, 0x61, 0)) })).toBeNull();
  });

  const template = (parts: Record<string, unknown>) => ({
    type: "TemplateProcessing",
    single: [],
    pair: [],
    special_tokens: {},
    ...parts,
  });
  const piece = { SpecialToken: { id: "<s>", type_id: 0 } };
  const known = { "<s>": { id: "<s>", ids: [1], tokens: ["<s>"] } };

  test("a template that names an unknown token", () => {
    expect(check({ post_processor: template({ single: [piece] }) })).toContain("unknown token <s>");
    expect(check({ post_processor: template({ pair: [piece] }) })).toContain("unknown token <s>");
    const nested = { type: "Sequence", processors: [{ type: "ByteLevel" }, template({ single: [piece] })] };
    expect(check({ post_processor: nested })).toContain("unknown token <s>");
    expect(check({ post_processor: template({ single: [piece], special_tokens: known }) })).toBeNull();
  });

  test("a template with ids and tokens that do not match, or of another shape", () => {
    const uneven = { "<s>": { id: "<s>", ids: [1, 2], tokens: ["<s>"] } };
    expect(check({ post_processor: template({ special_tokens: uneven }) })).toContain("another number of ids");
    expect(check({ post_processor: template({ single: 3 }) })).toBe("post_processor is not a template");
  });

  test("a splitter into pieces of no length", () => {
    const fixed = (length: number) => ({ type: "Sequence", pretokenizers: [{ type: "FixedLength", length }] });
    expect(check({ pre_tokenizer: fixed(0) })).toContain("length 0");
    expect(check({ pre_tokenizer: fixed(5) })).toBeNull();
  });

  test("merges without the prefix of a word's later pieces", () => {
    const model = { ...bpe, continuing_subword_prefix: "##" };
    expect(check({ model })).toBeNull();
    expect(check({ model: { ...model, merges: ["a b"] } })).toBe('the merge "a b" lacks the prefix ##');
    expect(check({ model: { ...model, merges: [["a", "é"]] } })).toContain("lacks the prefix");
  });
});

describe("the outline", () => {
  const around = { added_tokens: [], normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null };
  const spaced = JSON.stringify({ ...around, model: bpe }, null, 2);

  test("leaves vocabulary and merges out", () => {
    for (const text of [spaced, JSON.stringify({ ...around, model: bpe })]) {
      expect(JSON.parse(outline(text))).toEqual({ ...around, model: { type: "BPE" } });
    }
  });

  test.each([
    ["something after the model", { model: bpe, ...around }],
    [
      "a prefix whose merges must be looked at",
      { ...around, model: { type: "BPE", continuing_subword_prefix: "##", vocab: {} } },
    ],
    ["no type", { ...around, model: { vocab: {}, merges: [] } }],
  ])("is everything where there is %s", (_, json) => {
    const text = JSON.stringify(json);
    expect(outline(text)).toBe(text);
  });

  test("is everything where the file is cut off before the model", () => {
    expect(outline(spaced.slice(0, 40))).toBe(spaced.slice(0, 40));
  });
});

test("the model's type, told from its parts in old files", () => {
  const type = (model: Record<string, unknown>) => modelType(TokenizerJson.parse({ model }));
  expect(type({ type: "Unigram", vocab: [] })).toBe("Unigram");
  expect(type({ vocab: {}, merges: [] })).toBe("BPE");
  expect(type({ vocab: {} })).toBe("WordPiece");
});
