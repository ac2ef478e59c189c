/**
 * The tokenizer.json that PLaMo 2's and 3's list of pieces stands for: a line a piece, `[text, score, kind, …]`. Their own code,
 * which is not run, takes the pieces whose scores sum highest, and bytes for characters that no piece has, at a score of −1000.
 */
import { join } from "node:path";
import { z } from "zod";
import { damaged, readText } from "../json-file";
import type { TokenizerConfig } from "./tokenizer-config";
import type { TokenizerJson } from "./tokenizer-json";

/** The largest that is known of has 6 MB. */
const largest = 64 * 2 ** 20;

const Piece = z.tuple([z.string().min(1), z.number()]).rest(z.unknown());

/** Unigram takes a character that no piece has at the lowest score of all, less ten: bytes are given that score. */
const byteScore = -990;

/**
 * The tokenizer of a folder; null where it is of another class, or the file is not there.
 * @throws UserError for a file that is damaged
 */
export async function readPlamoPieces(
  folder: string,
  config: TokenizerConfig,
): Promise<{ json: TokenizerJson; path: string } | null> {
  if (!/^Plamo[23]Tokenizer(Fast)?$/.test(config.tokenizer_class ?? "")) return null;
  const path = join(folder, "tokenizer.jsonl");
  const text = await readText(path, largest);
  return text === null ? null : { json: parsePieces(text, path, config), path };
}

function parsePieces(text: string, path: string, config: TokenizerConfig): TokenizerJson {
  const pieces = text.split("\n").flatMap((line, i) => (line.trim() === "" ? [] : [readPiece(line, i + 1, path)]));
  const ids = new Map(pieces.map(([piece], id) => [piece, id]));
  if (ids.size < pieces.length) throw damaged(path, "a piece is there twice");
  for (let byte = 0; byte < 256; byte++) {
    const piece = `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
    if (pieces[ids.get(piece) ?? -1]?.[2] !== "BYTE") throw damaged(path, `there is no piece ${piece} of kind BYTE`);
  }
  const lowest = pieces.find(([, score, kind]) => kind !== "BYTE" && score <= byteScore);
  if (lowest) throw damaged(path, `the piece ${JSON.stringify(lowest[0])} has a score below those of bytes`);
  const isSpecial = (piece: string) => piece.startsWith("<|plamo:") && piece.endsWith("|>");
  const special = [...ids]
    .filter(([piece]) => isSpecial(piece))
    .map(([content, id]) => ({ ...addedToken, id, content }));
  const unknown = typeof config.unk_token === "string" ? config.unk_token : "<|plamo:unk|>";
  return {
    version: "1.0",
    added_tokens: special,
    decoder: { type: "Sequence", decoders: [{ type: "ByteFallback" }, { type: "Fuse" }] },
    model: {
      type: "Unigram",
      unk_id: ids.get(unknown) ?? 0,
      byte_fallback: true,
      vocab: pieces.map(([piece, score, kind]) => [piece, kind === "BYTE" ? byteScore : score]),
    },
  };
}

const addedToken = { special: true, single_word: false, lstrip: false, rstrip: false, normalized: false };

function readPiece(line: string, number: number, path: string): z.infer<typeof Piece> {
  try {
    const piece = Piece.safeParse(JSON.parse(line));
    if (piece.success) return piece.data;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  throw damaged(path, `line ${number} is no list of a piece and its score`);
}
