/** How byte-level tokenizers cut a text into words, by the name that GGUF files have for it. */
import { ExitCode, UserError } from "../../errors";
import type { JsonObject } from "../../json-file";
import { casedWords, cl100k, contractions, kimi, spaces } from "../../text/word-patterns";
import type { Metadata } from "./metadata";

export interface PreTokenizer {
  splits: JsonObject;
  normalizer?: JsonObject;
  /** A word that is a token is not taken apart. */
  ignoresMerges?: boolean;
  /** Texts begin with bos unless the file says otherwise. */
  addsBos?: boolean;
}

/** The same with marks as parts of words. */
const qwen35Words = [
  contractions,
  "[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+",
  "\\p{N}",
  " ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*",
  ...spaces,
].join("|");

const tekken = [...casedWords(""), "\\p{N}", " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*", ...spaces].join("|");

const o200k = [...casedWords(`${contractions}?`), "\\p{N}{1,3}", " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*", ...spaces].join(
  "|",
);

/** Symbols that lead an English word, words with one other sign ahead, symbols, line ends, spaces. */
const deepseekWords = [
  "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+",
  "[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+",
  " ?[\\p{P}\\p{S}]+[\\r\\n]*",
  ...spaces,
].join("|");

const deepseek3 = ["\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", deepseekWords];

/** Letters that have a case, as Unicode had them in 2023. */
const cased =
  "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃";

const deepseekLLM = [
  "[\r\n]",
  `\\s?[${cased}]+`,
  "\\s?[!-/:-~！-／：-～‘-‟　-。]+",
  "\\s+$",
  "[一-龥ࠀ-一가-\ud7ff]+",
  "\\p{N}+",
];

const gpt2Words = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)";

/** What is between punctuation and brackets of some scripts. */
const bloom = " ?[^(\\s|.,!?…。，、।۔،)]+";

const byteLevel = (usesRegex: boolean) => ({
  type: "ByteLevel",
  add_prefix_space: false,
  trim_offsets: true,
  use_regex: usesRegex,
});

/** llama.cpp's for files that say nothing: punctuation, then GPT-2's words in what is left, then digits by threes. */
const unsaid = ["[\\p{P}\\$\\+<=>\\^~\\|]+", gpt2Words, "\\p{N}+", "[0-9][0-9][0-9]"];

const sequence = (...pretokenizers: JsonObject[]) => ({ type: "Sequence", pretokenizers });

/** Each regex cuts what those before it left. */
const split = (...regexes: string[]) =>
  sequence(
    ...regexes.map((regex) => ({ type: "Split", pattern: { Regex: regex }, behavior: "Isolated", invert: false })),
    byteLevel(false),
  );

const gpt2: PreTokenizer = { splits: byteLevel(true) };
const digitByDigit: PreTokenizer = { splits: sequence({ type: "Digits", individual_digits: true }, byteLevel(true)) };
const qwen2: PreTokenizer = { splits: split(cl100k("\\p{N}")), normalizer: { type: "NFC" } };
const llama3: PreTokenizer = { splits: split(cl100k("\\p{N}{1,3}")), ignoresMerges: true, addsBos: true };

/** Numbers by threes, words, without contractions' merges. */
const plainLlama3: PreTokenizer = { splits: llama3.splits };
const plainQwen2: PreTokenizer = { splits: qwen2.splits };
const plainO200k: PreTokenizer = { splits: split(o200k) };
const deepseekV3: PreTokenizer = { splits: split(...deepseek3) };
const bailing: PreTokenizer = {
  splits: split(
    [
      "'(?i:[sdmt]|ll|ve|re)",
      "[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+",
      "\\p{N}",
      " ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*",
      "\\s*[\\r\\n]",
      "\\s+(?!\\S)",
      "\\s+",
    ].join("|"),
  ),
};

/** Digits by threes, from the right. */
const tinyAya: PreTokenizer = { splits: split("\\d{1,3}(?=(?:\\d{3})*\\b)", o200k) };

/** Scripts without spaces or with syllables as letters: Chinese, Japanese, Thai, Lao, Khmer, Burmese and Korean. */
const unspaced = [
  "\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0e7f",
  "\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff",
].join("");

/** Words may go on behind a space. */
const exaoneMoe = [
  contractions,
  "[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+",
  "\\p{N}",
  " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?",
  "\\s*[\\r\\n]",
  "\\s+(?!\\S)",
  "\\s+",
].join("|");

/** The same rule under several names. */
const named = (rule: PreTokenizer, ...names: string[]) => Object.fromEntries(names.map((name) => [name, rule]));

/** By name; of those that are alike, the first is the one that is written. */
const known: Readonly<Record<string, PreTokenizer>> = {
  ...named(gpt2, "gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "gigachat", "exaone4"),
  ...named(gpt2, "a.x-4.0", "mellum", "modern-bert", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de"),
  default: { splits: split(...unsaid) },
  ...named(llama3, "llama-bpe"),
  ...named(plainLlama3, "dbrx", "smaug-bpe", "chatglm-bpe"),
  ...named(llama3, "falcon3", "llama3", "llama-v3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
  ...named({ ...llama3, addsBos: false }, "glm4", "glm5"),
  qwen2,
  "deepseek-r1-qwen": { splits: qwen2.splits, addsBos: true },
  ...named(plainQwen2, "stablelm2", "hunyuan", "solar-open", "grok-2", "megrez", "kormo", "f2llmv2"),
  qwen35: { splits: split(qwen35Words), normalizer: { type: "NFC" } },
  ...named(digitByDigit, "smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"),
  tekken: { splits: split(tekken), ignoresMerges: true, addsBos: true },
  ...named(plainO200k, "gpt-4o", "llama4", "kanana2", "minimax-m2", "talkie"),
  ...named(deepseekV3, "deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"),
  "deepseek-llm": { splits: split(...deepseekLLM) },
  "deepseek-coder": { splits: split("[\r\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", "\\p{N}") },
  "kimi-k2": { splits: split(kimi) },
  falcon: { splits: split("[\\p{P}\\$\\+<=>\\^~\\|`]+", gpt2Words, "[0-9][0-9][0-9]") },
  ...named({ splits: split(bloom) }, "bloom", "poro-chat", "gpt3-finnish"),
  viking: { splits: split(bloom, "\\p{N}") },
  ...named(bailing, "bailingmoe", "bailingmoe2", "llada-moe"),
  "seed-coder": {
    splits: split(
      [contractions, "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+", "\\p{N}{1}", " ?[^\\s\\p{L}\\p{N}\\r\\n]+", ...spaces].join("|"),
    ),
  },
  minicpm5: { splits: split("\\p{N}{1,3}", cl100k("\\p{N}+")), ignoresMerges: true },
  ...named(tinyAya, "tiny_aya", "cohere2moe"),
  afmoe: { splits: split("\\p{N}{1,3}(?=(?:\\p{N}{3})*(?!\\p{N}))", `[${unspaced}]+`, deepseekWords) },
  "exaone-moe": { splits: split(exaoneMoe) },
  laguna: { splits: split("[^\\n]+|[\\n]+", cl100k("\\p{N}")) },
};

/** @throws UserError for a name that is not known: guessing would give other tokens than the model was trained on */
export function preTokenizer(metadata: Metadata): PreTokenizer {
  const said = metadata.text("tokenizer.ggml.pre");
  if (said === undefined) {
    metadata.warn("nothing says how the tokenizer splits words (tokenizer.ggml.pre): they are split as llama.cpp does");
  }
  const name = said ?? "default";
  if (Object.hasOwn(known, name)) return known[name]!;
  throw new UserError(`the file's tokenizer splits words by the rule "${name}", which mlxlm does not know`, {
    code: ExitCode.notFound,
    hint: `Known are ${Object.keys(known).join(", ")}. Take the model's safetensors, which have a tokenizer.json.`,
  });
}

/**
 * The name for how a tokenizer.json splits words; null where none is known.
 * @param splits its `pre_tokenizer`
 */
export function preTokenizerName(splits: unknown, ignoresMerges: boolean): string | null {
  const wanted = essence(splits);
  const found = Object.entries(known).find(
    ([, one]) => (one.ignoresMerges ?? false) === ignoresMerges && essence(one.splits) === wanted,
  );
  return found?.[0] ?? null;
}

/** What of a pre-tokenizer decides where it splits, as a text. */
function essence(splits: unknown): string {
  const { type, pretokenizers, pattern, behavior, invert, ...options } = (splits ?? {}) as JsonObject;
  switch (type) {
    case "Sequence":
      return Array.isArray(pretokenizers) ? pretokenizers.map(essence).join(", ") : "";
    case "Split":
      return JSON.stringify([type, pattern, behavior, invert]);
    case "Digits":
      return JSON.stringify([type, options.individual_digits]);
    case "ByteLevel":
      return JSON.stringify([type, options.add_prefix_space, options.use_regex ?? true]);
    default:
      return JSON.stringify(splits);
  }
}
