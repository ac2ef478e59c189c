/** tokenizer.json and tokenizer_config.json from a GGUF file's vocabulary. */
import { ExitCode, UserError } from "../../errors";
import type { JsonObject } from "../../json-file";
import type { Metadata } from "./metadata";
import { preTokenizer } from "./pre-tokenizers";
import { rwkvVocabulary } from "./rwkv-tokens";
import { type Parts, unigram, wordPiece } from "./word-models";

/** What `tokenizer.ggml.token_type` says of a token. */
const kinds = { unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 };

/** The kinds of tokenizers that can be read: byte-level BPE, SentencePiece's of two sorts, those of T5, BERT and RWKV. */
const models = ["gpt2", "llama", "gemma4", "t5", "bert", "rwkv"];

export interface TokenizerFiles {
  /** Absent where the vocabulary stands in another file. */
  tokenizer?: JsonObject;
  config: JsonObject;
  /** RWKV's own file. */
  rwkv?: string;
}

interface Vocabulary {
  tokens: string[];
  /** Kind of each token. */
  types: readonly number[];
  ids: Map<string, number>;
}

/**
 * The tokenizer that a file describes.
 * @throws UserError for another kind, or a vocabulary that is missing or broken
 */
export function tokenizerFiles(metadata: Metadata): TokenizerFiles {
  const model = metadata.text("tokenizer.ggml.model") ?? metadata.wrong("there is no tokenizer");
  if (!models.includes(model)) {
    throw new UserError(`the file has a tokenizer of the kind "${model}"; mlxlm reads ${models.join(", ")}`, {
      code: ExitCode.notFound,
      hint: "Take the model's safetensors, which have a tokenizer.json.",
    });
  }
  const vocabulary = readVocabulary(metadata);
  if (model === "rwkv") return rwkvFiles(metadata, vocabulary);
  // Exports of byte-level tokenizers under the other name have no bytes, but the byte alphabet's space.
  const isByteLevel =
    model === "gpt2" || (model === "llama" && !vocabulary.types.includes(kinds.byte) && vocabulary.ids.has("Ġ"));
  const named = namedTokens(metadata, vocabulary);
  const parts = isByteLevel ? byteLevel(metadata) : partsOf(model, metadata, vocabulary, named);
  const { normalizer, pre_tokenizer, decoder, addsBos } = parts;
  return {
    tokenizer: {
      version: "1.0",
      truncation: null,
      padding: null,
      added_tokens: addedTokens(vocabulary),
      normalizer,
      pre_tokenizer,
      post_processor: postProcessor(metadata, vocabulary, named, addsBos),
      decoder,
      model: parts.model ?? bpe(metadata, vocabulary, parts.options!),
    },
    config: {
      tokenizer_class: "PreTrainedTokenizerFast",
      clean_up_tokenization_spaces: false,
      ...named,
      chat_template: metadata.text("tokenizer.chat_template"),
    },
  };
}

function rwkvFiles(metadata: Metadata, vocabulary: Vocabulary): TokenizerFiles {
  const { tokens, types } = vocabulary;
  const isText = (id: number) => !isAdded(vocabulary, id) && types[id] !== kinds.unused;
  const template = metadata.text("tokenizer.chat_template");
  return {
    rwkv: rwkvVocabulary(metadata, tokens, isText),
    config: {
      tokenizer_class: "RwkvTokenizer",
      ...namedTokens(metadata, vocabulary),
      added_tokens_decoder: Object.fromEntries(
        addedTokens(vocabulary).map(({ id, content, special }) => [id, { content, special }]),
      ),
      // The name of a template that llama.cpp has built in.
      chat_template: template === "rwkv-world" ? undefined : template,
    },
  };
}

function bpe(metadata: Metadata, vocabulary: Vocabulary, options: JsonObject): JsonObject {
  const merges = readMerges(metadata, vocabulary) ?? deriveMerges(vocabulary, scoresOf(metadata, vocabulary));
  return { type: "BPE", dropout: null, ...options, vocab: asObject(vocabulary.ids), merges };
}

/** Of tokenizers that are not byte-level. */
function partsOf(model: string, metadata: Metadata, vocabulary: Vocabulary, named: Record<string, string>): Parts {
  if (model === "t5") return unigram(metadata, vocabulary.tokens, scoresOf(metadata, vocabulary));
  if (model === "bert") return wordPiece(metadata, vocabulary.tokens, (id) => isAdded(vocabulary, id));
  const parts = sentencePiece(metadata, named.unk_token ?? null, model === "llama");
  // Lines end words, so that no merge goes across.
  const lines = { type: "Split", pattern: { Regex: "[^\\n]+|\\n+" }, behavior: "Isolated", invert: false };
  return model === "gemma4" ? { ...parts, pre_tokenizer: lines } : parts;
}

/** Plain, for JSON; a token may be called "__proto__". */
function asObject(ids: ReadonlyMap<string, number>): JsonObject {
  const object: JsonObject = Object.create(null);
  for (const [token, id] of ids) object[token] = id;
  return object;
}

function readVocabulary(metadata: Metadata): Vocabulary {
  const tokens = metadata.texts("tokenizer.ggml.tokens") ?? metadata.wrong('"tokenizer.ggml.tokens" is missing');
  const types = metadata.numbers("tokenizer.ggml.token_type") ?? new Array<number>(tokens.length).fill(1);
  if (types.length !== tokens.length)
    metadata.wrong(`there are ${tokens.length} tokens, but ${types.length} token types`);
  const ids = new Map<string, number>();
  for (const [id, token] of tokens.entries()) {
    const before = ids.get(token);
    if (before !== undefined) metadata.wrong(`the tokens ${before} and ${id} are both ${JSON.stringify(token)}`);
    ids.set(token, id);
  }
  return { tokens, types, ids };
}

function readMerges(metadata: Metadata, { ids }: Vocabulary): [string, string][] | null {
  const lines = metadata.texts("tokenizer.ggml.merges");
  return (
    lines?.map((line) => {
      // The first character belongs to a token, whatever it is.
      const gap = line.indexOf(" ", 1);
      const [left, right] = [line.slice(0, gap), line.slice(gap + 1)];
      if (gap < 0 || !ids.has(left) || !ids.has(right) || !ids.has(left + right)) {
        metadata.wrong(`the merge ${JSON.stringify(line)} is not of tokens`);
      }
      return [left, right];
    }) ?? null
  );
}

/** How soon a token is merged: the higher, the sooner. */
function scoresOf(metadata: Metadata, { tokens }: Vocabulary): readonly number[] {
  const scores = metadata.numbers("tokenizer.ggml.scores");
  if (scores && scores.length !== tokens.length) {
    metadata.wrong(`there are ${tokens.length} tokens, but ${scores.length} scores`);
  }
  // Where all are the same, they say nothing: tokens were made in the order of their ids.
  return scores && new Set(scores).size > 1 ? scores : tokens.map((_, id) => -id);
}

/** Longer than any piece that merges make: each is taken apart in every way. */
const longestPiece = 128;

/**
 * Merges that give what SentencePiece gives: every way to make a token of two others, the best token first. Ties go to
 * the longer left part, as transformers has it.
 */
function deriveMerges({ tokens, ids, types }: Vocabulary, scores: readonly number[]): [string, string][] {
  const found: { left: string; right: string; score: number; lengths: [number, number] }[] = [];
  for (const [id, token] of tokens.entries()) {
    if (types[id] === kinds.control || types[id] === kinds.byte || types[id] === kinds.unknown) continue;
    const symbols = Array.from(token);
    if (symbols.length > longestPiece) continue;
    const own: typeof found = [];
    for (let i = 1; i < symbols.length; i++) {
      const [left, right] = [symbols.slice(0, i).join(""), symbols.slice(i).join("")];
      if (!ids.has(left) || !ids.has(right)) continue;
      own.push({ left, right, score: scores[id]!, lengths: [i, symbols.length - i] });
    }
    own.sort((a, b) => ids.get(a.left)! - ids.get(b.left)! || ids.get(a.right)! - ids.get(b.right)!);
    found.push(...own);
  }
  found.sort((a, b) => b.score - a.score || b.lengths[0] - a.lengths[0] || b.lengths[1] - a.lengths[1]);
  return found.map(({ left, right }) => [left, right]);
}

const isSpecial = ({ types }: Vocabulary, id: number) => types[id] === kinds.control || types[id] === kinds.unknown;
const isAdded = (all: Vocabulary, id: number) => isSpecial(all, id) || all.types[id] === kinds.userDefined;

function addedTokens(all: Vocabulary): JsonObject[] {
  return all.tokens.flatMap((content, id) => {
    const special = isSpecial(all, id);
    if (!isAdded(all, id)) return [];
    return [{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special }];
  });
}

/** bos_token and the like, by the ids that the file names. */
function namedTokens(metadata: Metadata, { tokens }: Vocabulary): Record<string, string> {
  const fields = { bos_token: "bos", eos_token: "eos", unk_token: "unknown", pad_token: "padding" };
  const named: Record<string, string> = {};
  for (const [field, name] of Object.entries(fields)) {
    const key = `tokenizer.ggml.${name}_token_id`;
    const id = metadata.number(key);
    if (id === undefined) continue;
    named[field] = tokens[id] ?? metadata.wrong(`"${key}" is ${id}, but there are ${tokens.length} tokens`);
  }
  return named;
}

function byteLevel(metadata: Metadata): Parts {
  const { splits, normalizer = null, ignoresMerges = false, addsBos = false } = preTokenizer(metadata);
  return {
    normalizer,
    pre_tokenizer: splits,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    options: { unk_token: null, fuse_unk: false, byte_fallback: false, ignore_merges: ignoresMerges },
    addsBos,
  };
}

/** SentencePiece's space. */
const space = "▁";

function sentencePiece(metadata: Metadata, unknown: string | null, usuallyPrefixes: boolean): Parts {
  const prefixes = metadata.flag("tokenizer.ggml.add_space_prefix") ?? usuallyPrefixes;
  const toSpaces = { type: "Replace", pattern: { String: " " }, content: space };
  const fromSpaces = { type: "Replace", pattern: { String: space }, content: " " };
  const decoders: JsonObject[] = [fromSpaces, { type: "ByteFallback" }, { type: "Fuse" }];
  if (prefixes) decoders.push({ type: "Strip", content: " ", start: 1, stop: 0 });
  const normalizers: JsonObject[] = prefixes ? [{ type: "Prepend", prepend: space }, toSpaces] : [toSpaces];
  return {
    normalizer: { type: "Sequence", normalizers },
    pre_tokenizer: null,
    decoder: { type: "Sequence", decoders },
    options: { unk_token: unknown, fuse_unk: true, byte_fallback: true, ignore_merges: false },
    addsBos: true,
  };
}

/** Puts bos ahead of a text and eos behind it, where the file wants them. */
function postProcessor(
  metadata: Metadata,
  { ids }: Vocabulary,
  { bos_token: bos, eos_token: eos }: Record<string, string>,
  addsBos: boolean,
): JsonObject | null {
  const before = (metadata.flag("tokenizer.ggml.add_bos_token") ?? addsBos) && bos !== undefined ? [bos] : [];
  const after = metadata.flag("tokenizer.ggml.add_eos_token") && eos !== undefined ? [eos] : [];
  if (before.length + after.length === 0) return null;
  const special = (tokens: string[], type_id: number) => tokens.map((id) => ({ SpecialToken: { id, type_id } }));
  const around = (id: string, type_id: number) => [
    ...special(before, type_id),
    { Sequence: { id, type_id } },
    ...special(after, type_id),
  ];
  const described = [...new Set([...before, ...after])].map((id) => [id, { id, ids: [ids.get(id)], tokens: [id] }]);
  return {
    type: "TemplateProcessing",
    single: around("A", 0),
    pair: [...around("A", 0), ...around("B", 1)],
    special_tokens: Object.fromEntries(described),
  };
}
