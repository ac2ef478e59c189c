/** Text to token ids and back: the native tokenizer of one checkpoint. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import type { Tokenizer as NativeTokenizer } from "tokenizers";
import { z } from "zod";
import { ExitCode, UserError } from "../errors";
import { damaged, readChecked, readText } from "../json-file";
import { native } from "./native";
import { readPlamoPieces } from "./plamo-pieces";
import { readRwkvVocabulary } from "./rwkv-vocabulary";
import { TextLimits } from "./text-limits";
import { readTiktoken } from "./tiktoken";
import { defect } from "./tokenizer-checks";
import { type AddedToken, specialTokens, type TokenizerConfig } from "./tokenizer-config";
import { parseTokenizerFile, readTokenizerFile, type TokenizerFile } from "./tokenizer-file";
import { type Component, gpt2TokenizerJson, modelType, type TokenizerJson } from "./tokenizer-json";

export interface EncodeOptions {
  /** Lets the post-processor add bos, eos and the like; true by default, as in transformers. */
  addSpecialTokens?: boolean;
}

export interface DecodeOptions {
  /** Leaves special tokens out; false by default. */
  skipSpecialTokens?: boolean;
}

export class Codec {
  /** Entries of the vocabulary, added tokens among them. */
  readonly vocabSize: number;
  /** tokenizer.json's decoder, which decides how text is streamed. */
  readonly decoder: Component | null;

  readonly #native: NativeTokenizer;
  readonly #decoder: ReturnType<NativeTokenizer["getDecoder"]>;
  readonly #special: Set<string>;
  readonly #path: string;
  readonly #cleansUp: boolean;
  readonly #writesNewlineAsTag: boolean;
  readonly #limits: TextLimits;

  constructor(tokenizer: NativeTokenizer, json: TokenizerJson, config: TokenizerConfig, path: string) {
    this.#native = tokenizer;
    this.#decoder = tokenizer.getDecoder();
    this.#path = path;
    this.#special = new Set(specialTokens(config));
    const added: { content: string; special: boolean }[] = [
      ...(json.added_tokens ?? []),
      ...Object.values(config.added_tokens_decoder ?? {}),
    ];
    for (const { content, special } of added) if (special) this.#special.add(content);
    // The clean-up is made for WordPiece and would eat real spaces of a BPE text, so it does not apply there.
    this.#cleansUp = config.clean_up_tokenization_spaces === true && modelType(json) !== "BPE";
    this.#writesNewlineAsTag = config.tokenizer_class === "NewlineTokenizer";
    this.vocabSize = tokenizer.getVocabSize(true);
    this.decoder = json.decoder ?? null;
    this.#limits = new TextLimits(json);
  }

  /** The ids of a text. It runs on the library's own threads, so the caller's loop goes on. */
  async encode(text: string, options: EncodeOptions = {}): Promise<number[]> {
    const [ids] = await this.encodeBatch([text], options);
    return ids!;
  }

  /** The ids of many texts, encoded in parallel. */
  async encodeBatch(texts: string[], { addSpecialTokens = true }: EncodeOptions = {}): Promise<number[][]> {
    const sources = this.#writesNewlineAsTag ? texts.map((text) => text.replaceAll("\n", "<n>")) : texts;
    for (const text of sources) {
      const problem = this.#limits.problemOf(text);
      if (problem) throw new UserError(`${this.#path}: ${problem}.`, { hint: "Cut the text." });
    }
    try {
      const encodings = await this.#native.encodeBatch(sources, { addSpecialTokens });
      return encodings.map((encoding) => encoding.getIds());
    } catch (cause) {
      throw damaged(this.#path, `encoding failed (${(cause as Error).message})`, cause);
    }
  }

  /** The text of token ids; ids without a token are passed over. */
  decode(ids: number[], { skipSpecialTokens = false }: DecodeOptions = {}): string {
    const tokens: string[] = [];
    for (const id of ids) {
      const token = this.tokenOf(id);
      if (token !== null && !(skipSpecialTokens && this.#special.has(token))) tokens.push(token);
    }
    if (tokens.length === 0) return "";
    const problem = this.#limits.problemOfTokens(tokens);
    if (problem) throw new UserError(`${this.#path}: ${problem}.`, { hint: "Cut the text." });
    const text = this.#decoder ? this.#decoder.decode(tokens) : tokens.join(" ");
    const cleaned = this.#cleansUp ? cleanUpSpaces(text) : text;
    return this.#writesNewlineAsTag ? cleaned.replaceAll("<n>", "\n") : cleaned;
  }

  idOf(token: string): number | null {
    return this.#native.tokenToId(token);
  }

  tokenOf(id: number): string | null {
    return this.#native.idToToken(id);
  }

  /** Whether a token is no part of a text: it marks a beginning, an end, a role. */
  isSpecial(token: string): boolean {
    return this.#special.has(token);
  }
}

/**
 * Opens the tokenizer of a checkpoint folder: tokenizer.json, else GPT-2's vocab.json and merges.txt, or the vocabulary of a
 * family whose code is known.
 *
 * How a text is cut stands in tokenizer.json alone. transformers 5 passes its normalizer and pre-tokenizer over for the
 * classes LlamaTokenizer(Fast), and builds them from `legacy` and `add_prefix_space` of tokenizer_config.json, so that
 * `<s>[INST]` begins with `[` rather than `▁[`. The models of these classes were trained before it: Llama 2 by code that
 * encodes each turn with SentencePiece's prefix behind `<s>`, later ones with transformers 4, which runs tokenizer.json
 * and writes into it what it ran. llama.cpp cuts so too.
 * @throws UserError where there is neither, or the files are damaged.
 */
export async function openCodec(folder: string, config: TokenizerConfig): Promise<Codec> {
  const path = join(folder, "tokenizer.json");
  const file = await readTokenizerFile(path);
  if (file) return build(file, config, path);
  const json = await readGpt2Files(folder, config);
  if (json) {
    const source = join(folder, "vocab.json");
    return build(parseTokenizerFile(JSON.stringify(json), source), config, source);
  }
  const listed = (await readTiktoken(folder, config)) ?? (await readPlamoPieces(folder, config));
  if (listed) return build(parseTokenizerFile(JSON.stringify(listed.json), listed.path), config, listed.path);
  const words = await readRwkvVocabulary(folder, config);
  if (words) return build(words.file, config, words.path);
  throw await noTokenizer(folder, config);
}

function build(file: TokenizerFile, config: TokenizerConfig, path: string): Codec {
  const problem = defect(file);
  if (problem) throw damaged(path, problem);
  const { json, text } = file;
  try {
    const tokenizer = native.Tokenizer.fromString(text);
    checkAddedTokens(tokenizer, json, config);
    addTokens(tokenizer, json, config);
    return new Codec(tokenizer, json, config, path);
  } catch (cause) {
    throw damaged(path, (cause as Error).message, cause);
  }
}

/** A token of which the normalizer leaves nothing would be found inside of characters, where the library panics. */
function checkAddedTokens(tokenizer: NativeTokenizer, json: TokenizerJson, config: TokenizerConfig): void {
  const normalizer = tokenizer.getNormalizer();
  if (!normalizer) return;
  for (const { content, special, normalized } of [
    ...(json.added_tokens ?? []),
    ...Object.values(config.added_tokens_decoder ?? {}),
  ]) {
    if (content === "" || !(normalized ?? !special) || normalizer.normalizeString(content) !== "") continue;
    throw new Error(`the normalizer leaves nothing of the added token ${JSON.stringify(content)}`);
  }
}

/** Adds what tokenizer_config.json declares beyond tokenizer.json, in the order of its ids. */
function addTokens(tokenizer: NativeTokenizer, json: TokenizerJson, config: TokenizerConfig): void {
  const known = new Set(json.added_tokens?.map(({ content }) => content));
  const declared = Object.entries(config.added_tokens_decoder ?? {}).sort(([a], [b]) => Number(a) - Number(b));
  const missing = declared.map(([, token]) => token).filter(({ content }) => !known.has(content));
  if (missing.length > 0) tokenizer.addAddedTokens(missing.map(toNative));
  tokenizer.addSpecialTokens(specialTokens(config));
}

function toNative(token: AddedToken) {
  return new native.AddedToken(token.content, token.special, {
    singleWord: token.single_word,
    leftStrip: token.lstrip,
    rightStrip: token.rstrip,
    normalized: token.normalized ?? !token.special,
  });
}

async function readGpt2Files(folder: string, config: TokenizerConfig): Promise<TokenizerJson | null> {
  if (!/^GPT2Tokenizer(Fast)?$/.test(config.tokenizer_class ?? "GPT2Tokenizer")) return null;
  const vocab = await readChecked(join(folder, "vocab.json"), z.record(z.string(), z.int().nonnegative()));
  const merges = vocab && (await readText(join(folder, "merges.txt")));
  return vocab && merges !== null ? gpt2TokenizerJson(vocab, merges) : null;
}

/** Vocabularies in other forms. */
const others = /^(tokenizer\.model|tekken\.json|tiktoken\.model|.*\.tiktoken|tokenizer\.jsonl|vocab\.(json|txt))$/;

async function noTokenizer(folder: string, { tokenizer_class: name }: TokenizerConfig): Promise<UserError> {
  const files = await readdir(folder).catch(() => [] as string[]);
  const [found, code] = [others, /^(tokenization_.*|tiktoken)\.py$/].map((one) =>
    files.filter((file) => one.test(file)).sort(),
  );
  const problem =
    found!.length > 0
      ? `${folder} has ${found!.join(" and ")} but no tokenizer.json, the only tokenizer format that mlxlm reads${name ? ` of the class ${name}` : ""}.`
      : `${folder} has no tokenizer.json.`;
  const unrun =
    code!.length > 0 ? ` Its tokenizer is Python code (${code!.join(", ")}), and mlxlm runs no code of a model.` : "";
  return new UserError(problem + unrun, {
    code: ExitCode.notFound,
    hint: "Most models exist on the Hub with a tokenizer.json; transformers' AutoTokenizer writes one on save_pretrained.",
  });
}

/** Takes out the spaces that a decoder of words leaves before punctuation, in the order that transformers does. */
function cleanUpSpaces(text: string): string {
  return text
    .replaceAll(" .", ".")
    .replaceAll(" ?", "?")
    .replaceAll(" !", "!")
    .replaceAll(" ,", ",")
    .replaceAll(" ' ", "'")
    .replaceAll(" n't", "n't")
    .replaceAll(" 'm", "'m")
    .replaceAll(" 's", "'s")
    .replaceAll(" 've", "'ve")
    .replaceAll(" 're", "'re");
}
