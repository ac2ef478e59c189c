/**
 * tokenizer.json files with something wrong in their structure, each loaded, and used on texts that are hard to cut.
 * `bun test/fuzz/tokenizers.ts [COUNT] [SEED]`
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { UserError } from "../../src/errors";
import { loadTokenizer } from "../../src/text/tokenizer";
import { type Dice, dice, pick } from "./dice";
import { fuzzMain } from "./supervise";

type Json = Record<string, unknown>;

const fixtures = join(import.meta.dir, "../fixtures/text");
const unigram = {
  type: "Unigram",
  unk_id: 0,
  byte_fallback: false,
  vocab: [
    ["<unk>", 0],
    ["▁", -2],
    ["a", -1],
    ["▁hello", -3],
    ["b", -1.5],
    ["é", -4],
    ["<0x41>", -5],
  ],
};
const origins: Json[] = [];
for (const name of ["byte-level", "byte-fallback", "word-piece"]) {
  origins.push(await Bun.file(join(fixtures, name, "tokenizer.json")).json());
}
origins.push({ ...origins[1], model: unigram, post_processor: null });
origins.push({ ...origins[0], model: { type: "WordLevel", vocab: { hello: 0, "<unk>": 1 }, unk_token: "<unk>" } });

const texts = [
  "",
  " ",
  "hi  there",
  "Hello, wörld! 敏捷 😀\n\n  x",
  "x".repeat(40),
  " \t\r\n ".repeat(50),
  "\u0000\u0001\u001b[2J\u200d\ufeff\u0301",
  "<s>a</s><|im_end|> <think> ",
  "ａⅨﬁ½…™㍿",
  "aaabbb".repeat(100),
  "🇩🇪👩‍👩‍👧",
];

const words = ["", " ", "a", "▁", "Ġ", "##", "é", "xx", "</w>", "<unk>", "\u0000", "\ud800", "aaa", "ab".repeat(500)];
const numbers = [0, 1, 2, 5, -1, 0.5, 1e9, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 53, 1e308];
const patterns = [
  "",
  "^",
  "$",
  "a*",
  "a?",
  " ",
  "\\s+",
  "\\b",
  "(?=a)",
  "(?<=a)",
  "[a",
  "(",
  "(x+x+)+y",
  "(a|aa)+$",
  "(a*)*",
  "x*x*x*x*y",
  "\\p{L}+",
  "\\p{Han}|.",
  "[^\\s]+",
  "(?i:A)",
  ".",
  "\\X",
  "\\R",
  "\\1",
  "(a)\\1",
  "\\g<0>",
  "(?~a)",
  "[[:alpha:]&&[^b]]",
  "a{0,99999}",
  "(?:a{1,50}){1,50}",
  "\\G",
  "\\K",
  "a\\Kb",
  "'s|'t| ?\\p{L}+| ?\\p{N}+|\\s+(?!\\S)|\\s+",
  "(?m).*",
  "\\xff",
  "\\u{41}",
  "(?>a+)b",
];

const flag = (roll: Dice) => roll(2) === 0;
const pattern = (roll: Dice) => (roll(3) === 0 ? { String: pick(roll, words) } : { Regex: pick(roll, patterns) });
const character = (roll: Dice) => pick(roll, [" ", "▁", "a", "Ġ", "é", "x"]);

/** Chars map of a trie: a whole block of zeros, or noise. */
function charsMap(roll: Dice): string {
  const bytes = Buffer.alloc(4 + 1024 + 8);
  bytes.writeUInt32LE(pick(roll, [1024, 1024, 1024, 4, 0, 5000]), 0);
  if (flag(roll)) for (let left = 20; left > 0; left--) bytes[4 + roll(1024)] = roll(256);
  // "a" leads to a leaf whose text is anywhere.
  bytes.writeUInt32LE((0x61 | 0x100 | (1 << 10)) >>> 0, 4 + 4 * 0x61);
  bytes.writeUInt32LE(pick(roll, [0, 1, 4, 8, 9, 5000]), 4 + 4 * 0x60);
  if (flag(roll)) bytes.write("éxx\u0000", 4 + 1024);
  return bytes.toString("base64");
}

const several = (roll: Dice, make: (roll: Dice) => unknown) => Array.from({ length: roll(4) }, () => make(roll));

const normalizers: ((roll: Dice) => Json)[] = [
  (roll) => ({ type: "Sequence", normalizers: several(roll, normalizer) }),
  (roll) => ({ type: "Replace", pattern: pattern(roll), content: pick(roll, words) }),
  (roll) => ({ type: "Prepend", prepend: pick(roll, words) }),
  (roll) => ({ type: "Strip", strip_left: flag(roll), strip_right: flag(roll) }),
  (roll) => ({ type: "Precompiled", precompiled_charsmap: charsMap(roll) }),
  (roll) => ({
    type: pick(roll, ["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "ByteLevel", "Nothing"]),
  }),
  (roll) => ({
    type: "BertNormalizer",
    clean_text: flag(roll),
    handle_chinese_chars: flag(roll),
    strip_accents: null,
    lowercase: flag(roll),
  }),
];
const normalizer = (roll: Dice): unknown => pick(roll, normalizers)(roll);

const splitters: ((roll: Dice) => Json)[] = [
  (roll) => ({ type: "Sequence", pretokenizers: several(roll, splitter) }),
  (roll) => ({
    type: "Split",
    pattern: pattern(roll),
    behavior: pick(roll, ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]),
    invert: flag(roll),
  }),
  (roll) => ({ type: "ByteLevel", add_prefix_space: flag(roll), trim_offsets: flag(roll), use_regex: flag(roll) }),
  (roll) => ({
    type: "Metaspace",
    replacement: character(roll),
    prepend_scheme: pick(roll, ["first", "always", "never"]),
    split: flag(roll),
  }),
  (roll) => ({ type: "FixedLength", length: pick(roll, numbers) }),
  (roll) => ({
    type: "Punctuation",
    behavior: pick(roll, ["Removed", "Isolated", "MergedWithPrevious", "Contiguous"]),
  }),
  (roll) => ({ type: "Digits", individual_digits: flag(roll) }),
  (roll) => ({ type: "CharDelimiterSplit", delimiter: character(roll) }),
  (roll) => ({ type: pick(roll, ["Whitespace", "WhitespaceSplit", "BertPreTokenizer", "UnicodeScripts", "Nothing"]) }),
];
const splitter = (roll: Dice): unknown => pick(roll, splitters)(roll);

const decoders: ((roll: Dice) => Json)[] = [
  (roll) => ({ type: "Sequence", decoders: several(roll, decoder) }),
  (roll) => ({ type: "Replace", pattern: pattern(roll), content: pick(roll, words) }),
  (roll) => ({
    type: "Strip",
    content: character(roll),
    start: pick(roll, numbers),
    stop: pick(roll, [0, 0, 1, 5, 1e9]),
  }),
  (roll) => ({
    type: "Metaspace",
    replacement: character(roll),
    prepend_scheme: pick(roll, ["first", "always", "never"]),
    split: flag(roll),
  }),
  (roll) => ({ type: "WordPiece", prefix: pick(roll, words), cleanup: flag(roll) }),
  (roll) => ({ type: "BPEDecoder", suffix: pick(roll, words) }),
  (roll) => ({
    type: "CTC",
    pad_token: pick(roll, words),
    word_delimiter_token: pick(roll, words),
    cleanup: flag(roll),
  }),
  (roll) => ({ type: pick(roll, ["ByteLevel", "ByteFallback", "Fuse", "Nothing"]) }),
];
const decoder = (roll: Dice): unknown => pick(roll, decoders)(roll);

const piece = (roll: Dice): Json =>
  flag(roll)
    ? { Sequence: { id: pick(roll, ["A", "A", "B"]), type_id: pick(roll, [0, 1, 5]) } }
    : { SpecialToken: { id: pick(roll, ["<s>", "</s>", "?"]), type_id: 0 } };
const special = (roll: Dice) => ({
  id: "<s>",
  ids: several(roll, (r) => pick(r, [0, 1, 2 ** 32 - 1])),
  tokens: several(roll, (r) => pick(r, words)),
});
const processors: ((roll: Dice) => Json)[] = [
  (roll) => ({ type: "Sequence", processors: several(roll, processor) }),
  (roll) => ({
    type: "TemplateProcessing",
    single: several(roll, piece),
    pair: several(roll, piece),
    special_tokens: { "<s>": special(roll), "</s>": { id: "</s>", ids: [2], tokens: ["</s>"] } },
  }),
  (roll) => ({ type: "ByteLevel", add_prefix_space: flag(roll), trim_offsets: flag(roll), use_regex: flag(roll) }),
  (roll) => ({ type: "BertProcessing", sep: ["[SEP]", pick(roll, numbers)], cls: ["[CLS]", 1] }),
  (roll) => ({
    type: "RobertaProcessing",
    sep: ["</s>", 2],
    cls: ["<s>", 1],
    trim_offsets: flag(roll),
    add_prefix_space: flag(roll),
  }),
];
const processor = (roll: Dice): unknown => pick(roll, processors)(roll);

const addedToken = (roll: Dice): Json => ({
  id: pick(roll, [...numbers, 3, 700]),
  content: pick(roll, [...words, "<x>", "there"]),
  single_word: flag(roll),
  lstrip: flag(roll),
  rstrip: flag(roll),
  normalized: flag(roll),
  special: flag(roll),
});

function changeModel(model: Json, roll: Dice): void {
  switch (roll(9)) {
    case 0:
      model.continuing_subword_prefix = pick(roll, [...words, null]);
      break;
    case 1:
      model.end_of_word_suffix = pick(roll, words);
      break;
    case 2:
      model.unk_token = pick(roll, [...words, null]);
      break;
    case 3:
      model[pick(roll, ["fuse_unk", "byte_fallback", "ignore_merges"])] = flag(roll);
      break;
    case 4:
      if (Array.isArray(model.merges))
        model.merges = [
          ...model.merges,
          pick(roll, [["a", "a"], "a b", ["in", "in"], [" ", ""], "é é", ["zz", "q"], 5]),
        ];
      break;
    case 5:
      if (!Array.isArray(model.vocab))
        model.vocab = { ...(model.vocab as Json), [pick(roll, words)]: pick(roll, numbers) };
      else model.vocab = [...model.vocab, [pick(roll, words), pick(roll, numbers)]];
      break;
    case 6:
      model[pick(roll, ["unk_id", "max_input_chars_per_word", "dropout"])] = pick(roll, numbers);
      break;
    case 7:
      model.type = pick(roll, ["BPE", "WordPiece", "WordLevel", "Unigram", "Nothing"]);
      break;
    default:
      model.vocab = pick<unknown>(roll, [
        {},
        [],
        { a: 0 },
        { aaa: 0, b: 0 },
        [["", 0]],
        [
          ["a", 0],
          ["a", -1],
        ],
      ]);
  }
}

function change(json: Json, roll: Dice): void {
  switch (roll(10)) {
    case 0:
    case 1:
      json.normalizer = normalizer(roll);
      break;
    case 2:
    case 3:
      json.pre_tokenizer = splitter(roll);
      break;
    case 4:
      json.post_processor = processor(roll);
      break;
    case 5:
    case 6:
      json.decoder = decoder(roll);
      break;
    case 7:
      json.added_tokens = [...[json.added_tokens ?? []].flat(), ...several(roll, addedToken)];
      break;
    case 8:
      json[pick(roll, Object.keys(json))] = pick<unknown>(roll, [null, {}, [], 5, "x", [{}]]);
      break;
    default:
      if (json.model instanceof Object) changeModel(json.model as Json, roll);
  }
}

/** Changes to the text that a reader of the structure would not see. */
function garbled(text: string, roll: Dice): string {
  const nested = 200 * (1 + roll(1000));
  switch (roll(5)) {
    case 0:
      return text.slice(0, roll(text.length));
    case 1:
      return `${text.slice(0, -1)},"pre_tokenizer":${JSON.stringify(splitter(roll))}}`;
    case 2:
      return `{"decoder":${JSON.stringify(decoder(roll))},${text.slice(1)}`;
    case 3:
      return text.replace(
        '"normalizer":',
        `"normalizer":${'{"type":"Sequence","normalizers":['.repeat(nested)}${"]}".repeat(nested)},"x":`,
      );
    default: {
      const at = roll(text.length);
      return (
        text.slice(0, at) +
        pick(roll, ['"', "{", "}", "[", ",", "\\", "1e999", "null", "\u0000"]) +
        text.slice(at + roll(3))
      );
    }
  }
}

const folder = mkdtempSync(join(tmpdir(), "mlxlm-fuzz-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));

/** @throws Error with the seed, for anything but a tokenizer that works or a UserError */
export async function fuzzTokenizer(seed: number): Promise<"sound" | "refused"> {
  const roll = dice(seed);
  const json = structuredClone(pick(roll, origins));
  for (let left = pick(roll, [1, 1, 2, 3]); left > 0; left--) change(json, roll);
  const text = JSON.stringify(json);
  writeFileSync(join(folder, "tokenizer.json"), roll(8) === 0 ? garbled(text, roll) : text);
  try {
    const tokenizer = await loadTokenizer(folder);
    const batch = await tokenizer.encodeBatch(texts);
    for (const ids of [...batch, [], [roll(800)], [0, 1, 2 ** 31, 4294967295]]) {
      tokenizer.decode(ids);
      const stream = tokenizer.detokenizer();
      for (const id of ids.slice(0, 50)) stream.addToken(id);
      stream.finalize();
    }
    return "sound";
  } catch (error) {
    if (!(error instanceof UserError) || !error.message.includes(folder)) {
      throw new Error(`the tokenizer of seed ${seed}: ${error}`, { cause: error });
    }
    return "refused";
  }
}

if (import.meta.main) await fuzzMain(import.meta.path, fuzzTokenizer);
