/** How byte-level tokenizers cut a text into words, by the name that GGUF files have for it. */
import { ExitCode, UserError } from "../../errors";
import type { JsonObject } from "../../json-file";
import type { Metadata } from "./metadata";

export interface PreTokenizer {
  splits: JsonObject;
  normalizer?: JsonObject;
  /** A word that is a token is not taken apart. */
  ignoresMerges?: boolean;
  /** Texts begin with bos unless the file says otherwise. */
  addsBos?: boolean;
}

/** English contractions, words, numbers of `digits`, symbols, line ends, spaces. */
const cl100k = (digits: string) =>
  [
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+",
    digits,
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*",
    "\\s*[\\r\\n]+",
    "\\s+(?!\\S)",
    "\\s+",
  ].join("|");

const upper = "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}";
const lower = "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}";

/** Words that also end where lower case turns into upper. */
const tekken = [
  `[^\\r\\n\\p{L}\\p{N}]?[${upper}]*[${lower}]+`,
  `[^\\r\\n\\p{L}\\p{N}]?[${upper}]+[${lower}]*`,
  "\\p{N}",
  " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*",
  "\\s*[\\r\\n]+",
  "\\s+(?!\\S)",
  "\\s+",
].join("|");

const byteLevel = (usesRegex: boolean) => ({
  type: "ByteLevel",
  add_prefix_space: false,
  trim_offsets: true,
  use_regex: usesRegex,
});

/** llama.cpp's for files that say nothing: punctuation, then GPT-2's words in what is left, then digits by threes. */
const unsaid = [
  "[\\p{P}\\$\\+<=>\\^~\\|]+",
  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)",
  "\\p{N}+",
  "[0-9][0-9][0-9]",
];

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

/** By name; of those that are alike, the first is the one that is written. */
const known: Readonly<Record<string, PreTokenizer>> = {
  "gpt-2": gpt2,
  default: { splits: split(...unsaid) },
  "llama-bpe": llama3,
  dbrx: { splits: llama3.splits },
  "smaug-bpe": { splits: llama3.splits },
  falcon3: llama3,
  llama3,
  "llama-v3": llama3,
  qwen2,
  "deepseek-r1-qwen": { splits: qwen2.splits, addsBos: true },
  smollm: digitByDigit,
  tekken: { splits: split(tekken), ignoresMerges: true, addsBos: true },
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
