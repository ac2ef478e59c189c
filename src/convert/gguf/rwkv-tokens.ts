/** RWKV's tokenizer in GGUF files: tokens are bytes, as Python writes them. */
import { join } from "node:path";
import { readText } from "../../json-file";
import type { GgufField } from "../../models";
import { charactersOf, vocabularyProblem } from "../../text/longest-match";
import { escapedBytes, rwkvFile, rwkvText, rwkvTokens } from "../../text/rwkv-vocabulary";
import type { TokenizerConfig } from "../../text/tokenizer-config";
import type { Metadata } from "./metadata";

/** A token's bytes. What is escaped otherwise stands for itself. */
function unescaped(token: string): Uint8Array {
  const letters: Readonly<Record<string, number>> = { t: 9, n: 10, r: 13 };
  const bytes: number[] = [];
  for (const [, hex, letter, plain] of token.matchAll(/\\x([0-9a-fA-F]{2})|\\(.)|([^\\])/gsu)) {
    if (hex !== undefined) bytes.push(Number.parseInt(hex, 16));
    else if (letter !== undefined && letter in letters) bytes.push(letters[letter]!);
    else bytes.push(...Buffer.from((letter ?? plain)!));
  }
  return Uint8Array.from(bytes);
}

/**
 * RWKV's own file of a vocabulary. @param isText whether an id is of a text @throws UserError where bytes have no token
 */
export function rwkvVocabulary(metadata: Metadata, tokens: readonly string[], isText: (id: number) => boolean): string {
  const own = new Map<number, Uint8Array>();
  const ids = new Map<string, number>();
  for (const [id, token] of tokens.entries()) {
    if (!isText(id)) continue;
    const bytes = unescaped(token);
    const before = ids.get(charactersOf(bytes));
    if (before !== undefined) metadata.wrong(`the tokens ${before} and ${id} have the same bytes`);
    ids.set(charactersOf(bytes), id);
    own.set(id, bytes);
  }
  const problem = vocabularyProblem(ids);
  if (problem) metadata.wrong(`its tokenizer is broken: ${problem}`);
  return rwkvText(own);
}

/** What `tokenizer.ggml.token_type` says. */
const kinds = { normal: 1, control: 3, unused: 5 };

/** Of a folder with RWKV's own file; null where there is none. @param size rows of the embedding */
export async function rwkvTokenizer(folder: string, size: number, config: TokenizerConfig) {
  const path = join(folder, rwkvFile);
  const text = await readText(path);
  if (text === null) return null;
  const special = new Map([[0, "<s>"]]);
  for (const [id, { content }] of Object.entries(config.added_tokens_decoder ?? {})) special.set(Number(id), content);
  const tokens = Array.from({ length: size }, (_, id) => special.get(id) ?? `[PAD${id}]`);
  const types = tokens.map((_, id) => (special.has(id) ? kinds.control : kinds.unused));
  for (const [id, bytes] of rwkvTokens(text, path)) {
    if (id >= size || special.has(id)) continue;
    tokens[id] = escapedBytes(bytes);
    types[id] = kinds.normal;
  }
  const kind: [string, GgufField][] = [["tokenizer.ggml.model", ["string", "rwkv"]]];
  return { kind, vocabulary: { tokens, types } };
}
