/**
 * RWKV's tokenizer: rwkv_vocab_v20230424.txt has a token a line, `id 'text' length` or `id b'bytes' length`, as Python writes
 * them. The longest that fits is taken. The code beside it is not run.
 */
import { join } from "node:path";
import { damaged, readText } from "../json-file";
import { charactersOf, longestMatchFile, vocabularyProblem } from "./longest-match";
import type { TokenizerConfig } from "./tokenizer-config";
import type { TokenizerFile } from "./tokenizer-file";

export const rwkvFile = "rwkv_vocab_v20230424.txt";

/** The one that there is has 1 MB. */
const largest = 32 * 2 ** 20;

/** The id that no line has, by its name in checkpoints. */
const endName = "<|rwkv_tokenizer_end_of_text|>";

/**
 * The tokenizer of a folder; null where there is no such file.
 * @throws UserError for a file that is damaged
 */
export async function readRwkvVocabulary(
  folder: string,
  config: TokenizerConfig,
): Promise<{ file: TokenizerFile; path: string } | null> {
  const path = join(folder, rwkvFile);
  const text = await readText(path, largest);
  if (text === null) return null;
  const tokens = new Map([...rwkvTokens(text, path)].map(([id, bytes]) => [charactersOf(bytes), id]));
  const problem = vocabularyProblem(tokens);
  if (problem) throw damaged(path, problem);
  const declared = Object.entries(config.added_tokens_decoder ?? {}).map(
    ([id, { content }]) => [content, Number(id)] as const,
  );
  const end = declared.some(([, id]) => id === 0) ? [] : [[endName, 0] as const];
  const special = new Map([...declared, ...end].filter(([content]) => !tokens.has(content)));
  return { file: longestMatchFile(tokens, special, path), path };
}

/** Tokens by their ids. @throws UserError for lines that are none */
export function rwkvTokens(text: string, path: string): Map<number, Uint8Array> {
  const tokens = new Map<number, Uint8Array>();
  const seen = new Set<string>();
  for (const [i, line] of text.split("\n").entries()) {
    if (line.trim() === "") continue;
    const parts = /^(\d{1,7}) (b?)(['"])(.*)\3 (\d{1,5})\r?$/su.exec(line);
    const bytes = parts && bytesOf(parts[4]!, parts[2] === "b");
    if (!bytes) throw damaged(path, `line ${i + 1} is no id, token and length`);
    if (bytes.length !== Number(parts[5])) {
      throw damaged(path, `the token of line ${i + 1} has ${bytes.length} bytes, not ${parts[5]}`);
    }
    const key = charactersOf(bytes);
    if (seen.has(key) || tokens.has(Number(parts[1]))) throw damaged(path, `line ${i + 1} is there twice`);
    seen.add(key);
    tokens.set(Number(parts[1]), bytes);
  }
  return tokens;
}

const escaped: Readonly<Record<string, number>> = { t: 9, n: 10, r: 13, "\\": 92, "'": 39, '"': 34 };

/** What stands between the quotes of a Python literal, in bytes; null where it is none. */
function bytesOf(literal: string, isBytes: boolean): Uint8Array | null {
  const bytes: number[] = [];
  const character = /\\x([0-9a-f]{2})|\\u([0-9a-f]{4})|\\U([0-9a-f]{8})|\\(.)|([^\\])/gsuy;
  while (character.lastIndex < literal.length) {
    const parts = character.exec(literal);
    if (!parts) return null;
    const [, hex, short, long, letter, plain] = parts;
    const known = letter === undefined ? undefined : escaped[letter];
    if (letter !== undefined && known === undefined) return null;
    const code = known ?? plain?.codePointAt(0) ?? Number.parseInt((hex ?? short ?? long)!, 16);
    if (code > (isBytes ? 0xff : 0x10ffff) || (code >= 0xd800 && code < 0xe000)) return null;
    if (isBytes) bytes.push(code);
    else bytes.push(...Buffer.from(String.fromCodePoint(code)));
  }
  return Uint8Array.from(bytes);
}

/** The other way round: a byte that is no printable ASCII, or a backslash, is escaped. */
export function escapedBytes(bytes: Uint8Array): string {
  const letters: Readonly<Record<number, string>> = { 9: "\\t", 10: "\\n", 13: "\\r", 92: "\\\\" };
  const one = (byte: number) =>
    byte < 0x20 || byte > 0x7e ? `\\x${byte.toString(16).padStart(2, "0")}` : String.fromCharCode(byte);
  return Array.from(bytes, (byte) => letters[byte] ?? one(byte)).join("");
}

/** The file for tokens. */
export function rwkvText(tokens: ReadonlyMap<number, Uint8Array>): string {
  const lines = [...tokens].map(
    ([id, bytes]) => `${id} b'${escapedBytes(bytes).replaceAll("'", "\\'")}' ${bytes.length}\n`,
  );
  return lines.join("");
}
