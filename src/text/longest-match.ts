/**
 * Tokenizers that take the longest token that the rest of a text begins with, in bytes, again and again, as a tokenizer.json: a
 * pattern of all tokens cuts texts, and BPE without merges looks the pieces up.
 */
import { BYTE_OF_CHARACTER } from "./byte-characters";
import { parseTokenizerFile, type TokenizerFile } from "./tokenizer-file";

const characterOf = new Map([...BYTE_OF_CHARACTER].map(([character, byte]) => [byte, character]));

/** Bytes as the characters that stand for them. */
export const charactersOf = (bytes: Uint8Array): string => Array.from(bytes, (byte) => characterOf.get(byte)!).join("");

/** Longer than any token: the pattern nests as deep. */
export const longestToken = 1000;

/** More than all tokens of a vocabulary have together. */
const mostCharacters = 2 ** 23;

interface Branch {
  next: Map<string, Branch>;
  /** A token ends here. */
  ends: boolean;
}

function treeOf(tokens: Iterable<string>): Branch {
  const root: Branch = { next: new Map(), ends: false };
  for (const token of tokens) {
    let at = root;
    for (const character of token) {
      const known = at.next.get(character) ?? { next: new Map(), ends: false };
      at.next.set(character, known);
      at = known;
    }
    at.ends = true;
  }
  return root;
}

const quoted = (character: string) => character.replace(/[\\^$.*+?()[\]{}|/#&~-]/, "\\$&");

/** Where a token ends and longer ones go on, those are tried first. */
function patternOf({ next, ends }: Branch): string {
  if (next.size === 0) return "";
  const [last, options]: [string[], string[]] = [[], []];
  for (const [character, branch] of next) {
    const rest = patternOf(branch);
    if (rest === "") last.push(quoted(character));
    else options.push(quoted(character) + rest);
  }
  if (last.length > 0) options.push(last.length === 1 ? last[0]! : `[${last.join("")}]`);
  const one = options.length === 1 ? options[0]! : `(?:${options.join("|")})`;
  return ends ? `(?:${one})?` : one;
}

/** What is wrong with the tokens, in the characters of their bytes; null where nothing is. */
export function vocabularyProblem(tokens: ReadonlyMap<string, number>): string | null {
  let length = 0;
  for (const token of tokens.keys()) {
    if (token === "" || token.length > longestToken) return `a token has ${token.length} bytes`;
    length += token.length;
  }
  if (length > mostCharacters) return `its tokens have ${length} bytes together`;
  const absent = [...characterOf].find(([, character]) => !tokens.has(character));
  return absent ? `the byte ${absent[0]} has no token` : null;
}

/**
 * The native library is given the pattern, which is as long as the vocabulary and never goes back further than a token is
 * long; limits of texts go by the rest.
 * @param tokens ids, by the characters of their bytes @param special ids of what is no text @param path what errors name
 */
export function longestMatchFile(
  tokens: ReadonlyMap<string, number>,
  special: ReadonlyMap<string, number>,
  path: string,
): TokenizerFile {
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
  const words = {
    type: "Split",
    pattern: { Regex: patternOf(treeOf(tokens.keys())) },
    behavior: "Isolated",
    invert: false,
  };
  const added = [...special].map(([content, id]) => ({
    ...{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true },
  }));
  const vocab = Object.fromEntries([...tokens, ...special]);
  const json = (pre_tokenizer: object) =>
    JSON.stringify({
      version: "1.0",
      added_tokens: added,
      normalizer: null,
      pre_tokenizer,
      decoder: byteLevel,
      model: { type: "BPE", ignore_merges: true, vocab, merges: [] },
    });
  const { text } = parseTokenizerFile(json({ type: "Sequence", pretokenizers: [byteLevel, words] }), path);
  return { ...parseTokenizerFile(json(byteLevel), path), text };
}
