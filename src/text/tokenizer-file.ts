/**
 * tokenizer.json, read once and strictly. The native library is given what was read here, written anew, so that a key
 * that occurs twice or a value out of bounds can't reach it unseen. Vocabulary and merges, which are most of the file,
 * go through as they stand.
 */
import { check, damaged, readText } from "../json-file";
import { JsonScanner, RawJson } from "../json-scanner";
import { type Component, modelType, TokenizerJson } from "./tokenizer-json";

/** Four times the largest that is known of. */
const largest = 128 * 2 ** 20;
/** Components hold each other in lists; real files come to six levels. */
const deepest = 32;
const raw = new Set(["model.vocab", "model.merges"]);

export interface TokenizerFile {
  /** What the file says, without vocabulary and merges. */
  json: TokenizerJson;
  /** Both as JSON; null where the file has them not. */
  vocab: string | null;
  merges: string | null;
  /** The whole of it, for the native library. Truncation and padding do not apply to models that generate. */
  text: string;
}

/**
 * The tokenizer.json at `path`, or null where there is none.
 * @throws UserError where it is not what it should be
 */
export async function readTokenizerFile(path: string): Promise<TokenizerFile | null> {
  const text = await readText(path, largest);
  return text === null ? null : parseTokenizerFile(text, path);
}

/** @throws UserError that names the file and what is wrong with it */
export function parseTokenizerFile(text: string, path: string): TokenizerFile {
  let root: Record<string, unknown>;
  try {
    const entries = new JsonScanner(text, { deepest, raw }).object();
    const kept = entries.filter(([name]) => name !== "truncation" && name !== "padding");
    root = Object.fromEntries(kept.map(([name, value]) => [name, plain(value)]));
  } catch (cause) {
    const problem = text.trim() === "" ? "the file is empty" : `it is not JSON: ${(cause as Error).message}`;
    throw damaged(path, problem, cause);
  }
  const model = isObject(root.model) ? root.model : {};
  const [vocab = null, merges = null] = [model.vocab, model.merges].map((part) =>
    part instanceof RawJson ? part.text : null,
  );
  // That there are merges is what tells the model of a file that does not name it.
  const outline = isObject(root.model)
    ? { ...root, model: { ...model, vocab: undefined, merges: merges && [] } }
    : root;
  const read = check(path, outline, TokenizerJson);
  const decoder = decoderOf(read);
  return {
    json: { ...read, decoder },
    vocab,
    merges,
    text: write(decoder === undefined ? root : { ...root, decoder }),
  };
}

const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: false, use_regex: false };

/**
 * The decoder, which is ByteLevel wherever texts become bytes before BPE cuts them: then the vocabulary is made of
 * bytes. Some conversions of Mistral's tekken keep SentencePiece's decoder, which would print `hiĠÐŁ`.
 */
function decoderOf({ model, normalizer, pre_tokenizer, decoder }: TokenizerJson): Component | null | undefined {
  const makesBytes = [...typesOf(normalizer), ...typesOf(pre_tokenizer)].includes("ByteLevel");
  const readsWords = typesOf(decoder).every((type) => ofSentencePiece.has(type));
  return makesBytes && modelType({ model }) === "BPE" && readsWords ? byteLevel : decoder;
}

const ofSentencePiece: ReadonlySet<unknown> = new Set(["Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"]);

/** The types of a component's parts, in Sequences too. */
function typesOf(component: unknown): unknown[] {
  if (Array.isArray(component)) return component.flatMap(typesOf);
  if (!isObject(component)) return [];
  return component.type === "Sequence" ? Object.values(component).flatMap(typesOf) : [component.type];
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof RawJson);

/** Maps as objects. @throws SyntaxError for a number that is none here */
function plain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value === "number" && !Number.isFinite(value)) throw new SyntaxError("a number is too large");
  if (!(value instanceof Map)) return value;
  return Object.fromEntries([...value].map(([key, item]) => [key, plain(item)]));
}

function write(value: unknown): string {
  if (value instanceof RawJson) return value.text;
  if (Array.isArray(value)) return `[${value.map(write).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  return `{${Object.entries(value)
    .map(([key, item]) => `${JSON.stringify(key)}:${write(item)}`)
    .join(",")}}`;
}
