/**
 * The tokenizer.json that a vocabulary of tiktoken's stands for. Such a file lists tokens, in bytes, by rank; how texts are cut
 * into words, and which special tokens there are, stands in Python code beside it, which is not run: families are known here.
 */
import { join } from "node:path";
import { damaged, readText } from "../json-file";
import { BYTE_OF_CHARACTER } from "./byte-characters";
import type { TokenizerConfig } from "./tokenizer-config";
import type { TokenizerJson } from "./tokenizer-json";
import { cl100k, kimi } from "./word-patterns";

interface Family {
  file: string;
  /** Cuts a text into words. */
  pattern: string;
  /** Texts are brought into this Unicode form first. */
  normalizer?: "NFC";
  /** Names of the ids behind the vocabulary's last. */
  special(first: number): string[];
}

const numbered = (name: string, count: number, first = 0) =>
  Array.from({ length: count }, (_, i) => `<|${name}_${i + first}|>`);

/** By `tokenizer_class`. */
const families: Readonly<Record<string, Family>> = {
  HYTokenizer: {
    file: "hy.tiktoken",
    pattern: cl100k("\\p{N}"),
    normalizer: "NFC",
    special: () => ["<|endoftext|>", "<|startoftext|>", "<|bos|>", "<|eos|>", "<|pad|>", ...numbered("extra", 204)],
  },
  Phi3SmallTokenizer: {
    file: "cl100k_base.tiktoken",
    pattern: cl100k("\\p{N}{1,3}"),
    special: () => [
      ...["<|dummy_id_2|>", "<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"],
      ...["<|system|>", "<|user|>", "<|assistant|>", "<|dummy_id_0|>", "<|dummy_id_1|>", "<|end|>"],
      ...[...numbered("dummy_id", 9, 3), "<|endofprompt|>", ...numbered("dummy_id", 75, 12)],
    ],
  },
  QWenTokenizer: {
    file: "qwen.tiktoken",
    pattern: cl100k("\\p{N}"),
    normalizer: "NFC",
    special: () => ["<|endoftext|>", "<|im_start|>", "<|im_end|>", ...numbered("extra", 205)],
  },
  // Kimi's. The configuration names some of the ids.
  TikTokenTokenizer: {
    file: "tiktoken.model",
    pattern: kimi,
    special: (first) => numbered("reserved_token", 258, first),
  },
};

/** The largest that is known of has 3 MB. */
const largest = 32 * 2 ** 20;

/**
 * The tokenizer of a folder whose class is of a family that is known; null where it is not, or the file is not there.
 * @throws UserError for a file that is damaged
 */
export async function readTiktoken(
  folder: string,
  config: TokenizerConfig,
): Promise<{ json: TokenizerJson; path: string } | null> {
  const name = config.tokenizer_class?.replace(/Fast$/, "") ?? "";
  if (!Object.hasOwn(families, name)) return null;
  const family = families[name]!;
  const path = join(folder, family.file);
  const text = await readText(path, largest);
  return text === null ? null : { json: tokenizerJson(parseRanks(text, path), family, config), path };
}

const characterOf = new Map([...BYTE_OF_CHARACTER].map(([character, byte]) => [byte, character]));

/** Tokens, a character a byte, in the order of their ranks. */
function parseRanks(text: string, path: string): string[] {
  const tokens: string[] = [];
  const seen = new Set<string>();
  for (const [i, line] of text.split("\n").entries()) {
    const parts = /^([A-Za-z0-9+/]+={0,2}) (\d{1,7})\r?$/.exec(line);
    if (!parts) {
      if (line.trim() === "") continue;
      throw damaged(path, `line ${i + 1} is no token in base64 and its rank`);
    }
    const token = Array.from(Buffer.from(parts[1]!, "base64"), (byte) => characterOf.get(byte)!).join("");
    if (seen.has(token)) throw damaged(path, `the token of line ${i + 1} is there twice`);
    if (Number(parts[2]) !== tokens.length)
      throw damaged(path, `line ${i + 1} has rank ${parts[2]}, not ${tokens.length}`);
    seen.add(token);
    tokens.push(token);
  }
  const absent = [...characterOf].find(([, character]) => !seen.has(character));
  if (absent) throw damaged(path, `the byte ${absent[0]} has no token`);
  return tokens;
}

function tokenizerJson(tokens: readonly string[], family: Family, config: TokenizerConfig): TokenizerJson {
  const ranks = new Map(tokens.map((token, rank) => [token, rank]));
  const special = new Map(
    family.special(tokens.length).map((content, i) => [tokens.length + i, { ...plain, content }]),
  );
  for (const [id, { content, special: is }] of Object.entries(config.added_tokens_decoder ?? {})) {
    special.set(Number(id), { ...plain, content, special: is });
  }
  const added = [...special].sort(([a], [b]) => a - b).map(([id, token]) => ({ id, ...token }));
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
  const words = { type: "Split", pattern: { Regex: family.pattern }, behavior: "Isolated", invert: false };
  return {
    version: "1.0",
    added_tokens: added,
    normalizer: family.normalizer ? { type: family.normalizer } : null,
    pre_tokenizer: { type: "Sequence", pretokenizers: [words, byteLevel] },
    decoder: byteLevel,
    model: {
      type: "BPE",
      // A word that is a token is not taken apart.
      ignore_merges: true,
      vocab: Object.fromEntries([...ranks, ...added.map(({ id, content }) => [content, id] as const)]),
      merges: mergesOf(ranks),
    },
  };
}

const plain = { special: true, single_word: false, lstrip: false, rstrip: false, normalized: false };

/** Each two tokens that make a third, in the order of its rank: tiktoken joins whatever neighbours make the first. */
function mergesOf(ranks: ReadonlyMap<string, number>): [string, string][] {
  const merges: [string, string][] = [];
  for (const token of ranks.keys()) {
    for (let i = 1; i < token.length; i++) {
      const [left, right] = [token.slice(0, i), token.slice(i)];
      if (ranks.has(left) && ranks.has(right)) merges.push([left, right]);
    }
  }
  return merges;
}
