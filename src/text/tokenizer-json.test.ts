import { describe, expect, test } from "bun:test";
import { defect } from "./tokenizer-checks";
import { parseTokenizerFile } from "./tokenizer-file";
import { modelType, TokenizerJson } from "./tokenizer-json";

const bpe = { type: "BPE", vocab: { a: 0, "##b": 1, "a##b": 2 }, merges: [["a", "##b"]] };
const check = (parts: Record<string, unknown>) =>
  defect(parseTokenizerFile(JSON.stringify({ model: bpe, ...parts }), "tokenizer.json"));

/** SentencePiece's table: a trie of zeros, one unit unless it is a whole one of 256, then its text. */
const charsMap = (trieBytes: number, ...text: number[]) => {
  // Where it says more than there can be, or less, the file is cut.
  const units = trieBytes === 1024 ? 1024 : 4;
  const bytes = Buffer.alloc(4 + units + text.length);
  bytes.writeUInt32LE(trieBytes, 0);
  bytes.set(text, 4 + units);
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
    expect(check({ normalizer: precompiled(charsMap(1024, 0x61, 0)) })).toBeNull();
  });

  test("a trie whose ways leave it, or end outside of the texts", () => {
    // From the root, every byte's place is looked at.
    expect(check({ normalizer: precompiled(charsMap(4, 0x61, 0)) })).toBe("precompiled_charsmap is damaged");
    const leaf = (place: number) => {
      const bytes = Buffer.from(charsMap(1024, 0xc3, 0xa9, 0), "base64");
      // "a" leads to unit 0x61, whose text's place stands in unit 0x60.
      bytes.writeUInt32LE((0x61 | 0x100 | (1 << 10)) >>> 0, 4 + 4 * 0x61);
      bytes.writeUInt32LE(place, 4 + 4 * 0x60);
      return bytes.toString("base64");
    };
    expect(check({ normalizer: precompiled(leaf(0)) })).toBeNull();
    expect(check({ normalizer: precompiled(leaf(1)) })).toBe("precompiled_charsmap is damaged");
    expect(check({ normalizer: precompiled(leaf(4)) })).toBe("precompiled_charsmap is damaged");
  });

  const replace = (pattern: object, content = "x") => ({ type: "Replace", pattern, content });
  test.each([
    [{ String: "" }, "matches nothing"],
    [{ Regex: "^" }, "matches nothing"],
    [{ Regex: "a*" }, "matches nothing"],
    [{ Regex: "(?=a)|b" }, "matches nothing"],
    [{ Regex: "(x+x+)+y" }, "can go back without end"],
    [{ Regex: "(a" }, "can't be used"],
    [{ Text: "a" }, "without a pattern"],
  ])("a normalizer that replaces %j", (pattern, problem) => {
    expect(check({ normalizer: replace(pattern) })).toContain(problem);
    const nested = { type: "Sequence", normalizers: [{ type: "NFC" }, replace(pattern)] };
    expect(check({ normalizer: nested })).toContain(problem);
  });

  test("replacements that make a text longer and longer", () => {
    const chain = (count: number) => ({
      type: "Sequence",
      normalizers: Array.from({ length: count }, () => replace({ String: "a" }, "aaaa")),
    });
    expect(check({ normalizer: chain(2) })).toBeNull();
    expect(check({ normalizer: chain(40) })).toBe("normalizer makes texts too long");
  });

  test("a splitter whose pattern can go back without end", () => {
    const split = (Regex: string) => ({ type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false });
    expect(check({ pre_tokenizer: split("(x+x+)+y") })).toContain("can go back without end");
    expect(check({ pre_tokenizer: split("x+y") })).toBeNull();
    expect(check({ pre_tokenizer: split("") })).toBeNull();
  });

  test("decoders: without a type, and Strip at the end of a text", () => {
    const strip = (start: number, stop: number) => ({ type: "Strip", content: " ", start, stop });
    expect(check({ decoder: { content: " " } })).toContain("without a type");
    expect(check({ decoder: { type: "Sequence", decoders: [{ type: "Fuse" }, strip(1, 1)] } })).toContain(
      "strips the ends",
    );
    expect(check({ decoder: { type: "Sequence", decoders: [5] } })).toContain("without decoders");
    expect(check({ decoder: strip(1, 0) })).toBeNull();
  });

  test("a template of two texts for one, and two templates in a row", () => {
    const second = { Sequence: { id: "B", type_id: 0 } };
    expect(check({ post_processor: template({ single: [second] }) })).toContain("a second text");
    expect(check({ post_processor: template({ pair: [second] }) })).toBeNull();
    const both = { type: "Sequence", processors: [template({}), { type: "ByteLevel" }, template({})] };
    expect(check({ post_processor: both })).toContain("more than once");
  });

  test("merges that are longer than any token", () => {
    const model = { type: "BPE", vocab: { aaa: 0, é: 1 } };
    for (const merge of ["aaa aaa", ["aaa", "aaa"]]) {
      expect(check({ model: { ...model, merges: [merge] } })).toContain("is longer than any token");
    }
    // Bytes count, not characters.
    expect(check({ model: { ...model, merges: [["é", "é"]] } })).toContain("is longer than any token");
    expect(check({ model: { ...model, merges: [["é", "a"]] } })).toBeNull();
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

describe("what is read and handed over", () => {
  const around = { added_tokens: [], normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null };
  const parse = (text: string) => parseTokenizerFile(text, "tokenizer.json");

  test.each([
    ["laid out in lines", JSON.stringify({ ...around, model: bpe }, null, 2)],
    ["in one line", JSON.stringify({ ...around, model: bpe })],
    ["with the model first", JSON.stringify({ model: bpe, ...around })],
  ])("is the same, vocabulary and merges as they stand: %s", (_, text) => {
    const file = parse(text);
    expect(JSON.parse(file.text)).toEqual({ ...around, model: bpe });
    expect(file.json).toEqual({ ...around, model: { type: "BPE", vocab: undefined, merges: [] } });
    expect(JSON.parse(file.vocab!)).toEqual(bpe.vocab);
    expect(JSON.parse(file.merges!)).toEqual(bpe.merges);
  });

  test("texts with quotes, brackets and escapes in the vocabulary", () => {
    const vocab = { '"': 0, "\\": 1, '\\"': 2, "}]": 3, "é\n": 4, __proto__x: 5 };
    expect(JSON.parse(parse(JSON.stringify({ model: { ...bpe, vocab } })).vocab!)).toEqual(vocab);
  });

  test("has neither truncation nor padding", () => {
    const text = JSON.stringify({ truncation: { max_length: 1, stride: 2 }, padding: {}, model: bpe });
    expect(JSON.parse(parse(text).text)).toEqual({ model: bpe });
  });

  const nested = `${'{"type":"Sequence","normalizers":['.repeat(100_000)}${"]}".repeat(100_000)}`;
  test.each([
    [
      "a key behind the model that stands there twice",
      '{"pre_tokenizer":null,"model":{},"pre_tokenizer":{}}',
      "occurs twice",
    ],
    [
      "a key in a part that stands there twice",
      '{"normalizer":{"type":"NFC","type":"NFD"},"model":{}}',
      "occurs twice",
    ],
    ["a key with an escape that is the same", '{"model":{},"mod\\u0065l":{}}', "occurs twice"],
    ["parts in parts without end", `{"normalizer":${nested},"model":{}}`, "deeper than 32 levels"],
    ["lists in the vocabulary without end", `{"model":{"vocab":${"[".repeat(100_000)}}}`, "deeper than 32 levels"],
    ["an end in the middle", '{"model":{"vocab":{"a":1', "EOF while parsing"],
    ["an end in a token", '{"model":{"vocab":{"a', "does not end"],
    ["a number beyond all", '{"normalizer":{"type":"x","n":1e999},"model":{}}', "too large"],
    ["a list for a model", '{"model":[]}', '"model"'],
  ])("refuses %s", (_, text, problem) => {
    expect(() => parse(text)).toThrow(problem);
  });
});

describe("the decoder of a vocabulary that is made of bytes", () => {
  const bytes = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  const spm = { type: "Sequence", decoders: [{ type: "ByteFallback" }, { type: "Fuse" }] };
  const decoderOf = (parts: object, model: object = bpe) => {
    const { json, text } = parseTokenizerFile(JSON.stringify({ ...parts, model }), "tokenizer.json");
    expect(JSON.parse(text).decoder).toEqual(json.decoder);
    return json.decoder?.type;
  };

  test.each([
    ["the pre-tokenizer", { pre_tokenizer: bytes }],
    [
      "one of several pre-tokenizers",
      { pre_tokenizer: { type: "Sequence", pretokenizers: [{ type: "Digits" }, bytes] } },
    ],
    ["the normalizer", { normalizer: bytes }],
  ])("is ByteLevel, as %s says", (_, parts) => {
    expect(decoderOf({ ...parts, decoder: spm })).toBe("ByteLevel");
    expect(decoderOf(parts)).toBe("ByteLevel");
  });

  test("is the file's where that is ByteLevel, and for every other vocabulary", () => {
    const sequence = { type: "Sequence", decoders: [bytes, { type: "Fuse" }] };
    expect(decoderOf({ pre_tokenizer: bytes, decoder: sequence })).toBe("Sequence");
    expect(decoderOf({ pre_tokenizer: { type: "Metaspace" }, decoder: spm })).toBe("Sequence");
    expect(decoderOf({ pre_tokenizer: bytes, decoder: spm }, { type: "WordPiece", vocab: {} })).toBe("Sequence");
  });
});

test("the model's type, told from its parts in old files", () => {
  const type = (model: Record<string, unknown>) => modelType(TokenizerJson.parse({ model }));
  expect(type({ type: "Unigram", vocab: [] })).toBe("Unigram");
  expect(type({ vocab: {}, merges: [] })).toBe("BPE");
  expect(type({ vocab: {} })).toBe("WordPiece");
});
