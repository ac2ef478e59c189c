/** Tokenizers in GGUF files that are no BPE: T5's unigrams and BERT's word pieces. */
import type { JsonObject } from "../../json-file";
import type { Metadata } from "./metadata";

/** What tokenizer.json has of a tokenizer's kind. */
export interface Parts {
  normalizer: JsonObject | null;
  pre_tokenizer: JsonObject | null;
  decoder: JsonObject;
  /** Of a BPE model. */
  options?: JsonObject;
  /** A model of another type. */
  model?: JsonObject;
  /** Texts begin with bos unless the file says otherwise. */
  addsBos: boolean;
}

/** What spaces and beginnings of words are in these files. */
const space = "▁";

const replaced = (pattern: JsonObject, content: string) => ({ type: "Replace", pattern, content });

/**
 * SentencePiece's unigrams. Kudo 2018, arXiv:1804.10959.
 * @throws UserError where no token stands for what is unknown
 */
export function unigram(metadata: Metadata, tokens: readonly string[], scores: readonly number[]): Parts {
  const unknown = metadata.number("tokenizer.ggml.unknown_token_id");
  if (unknown === undefined || unknown >= tokens.length) metadata.wrong("its tokenizer names no unknown token");
  const prefixes = metadata.flag("tokenizer.ggml.add_space_prefix") ?? false;
  const merges = metadata.flag("tokenizer.ggml.remove_extra_whitespaces") ?? false;
  const map = metadata.numbers("tokenizer.ggml.precompiled_charsmap");
  const normalizers: JsonObject[] = [];
  if (map?.length) {
    const bytes = Buffer.from(Uint8Array.from(map));
    normalizers.push({ type: "Precompiled", precompiled_charsmap: bytes.toString("base64") });
  }
  if (merges) normalizers.push(replaced({ Regex: " +" }, " "), replaced({ Regex: "^ | $" }, ""));
  if (prefixes || merges) normalizers.push({ type: "Prepend", prepend: space });
  normalizers.push(replaced({ String: " " }, space));
  const decoders = [
    replaced({ String: space }, " "),
    { type: "Fuse" },
    { type: "Strip", content: " ", start: prefixes || merges ? 1 : 0, stop: 0 },
  ];
  return {
    normalizer: { type: "Sequence", normalizers },
    pre_tokenizer: null,
    decoder: { type: "Sequence", decoders },
    model: {
      type: "Unigram",
      unk_id: unknown,
      vocab: tokens.map((token, id) => [token, scores[id]!]),
      byte_fallback: false,
    },
    addsBos: false,
  };
}

/**
 * BERT's word pieces: lower case, without accents. Files mark the beginnings of words, tokenizer.json what continues them.
 * @param isAdded whether a token is none of words @throws UserError where no token stands for what is unknown
 */
export function wordPiece(metadata: Metadata, tokens: readonly string[], isAdded: (id: number) => boolean): Parts {
  const unknown = tokens[metadata.number("tokenizer.ggml.unknown_token_id") ?? -1];
  if (unknown === undefined) metadata.wrong("its tokenizer names no unknown token");
  const continuing = "##";
  const vocab: JsonObject = Object.create(null);
  for (const [id, token] of tokens.entries()) {
    const begins = token.startsWith(space);
    vocab[isAdded(id) ? token : begins ? token.slice(space.length) : continuing + token] = id;
  }
  return {
    normalizer: {
      type: "BertNormalizer",
      clean_text: true,
      handle_chinese_chars: true,
      strip_accents: true,
      lowercase: true,
    },
    pre_tokenizer: { type: "BertPreTokenizer" },
    decoder: { type: "WordPiece", prefix: continuing, cleanup: false },
    model: {
      type: "WordPiece",
      unk_token: unknown,
      continuing_subword_prefix: continuing,
      max_input_chars_per_word: longestWord,
      vocab,
    },
    addsBos: true,
  };
}

/** llama.cpp knows no limit; words that are longer are taken for unknown. */
const longestWord = 1000;
