import type { Codec } from "./codec";
import type { Detokenizer } from "./detokenizer";

const UTF8 = new TextEncoder();
const TEXT = new TextDecoder("utf-8", { ignoreBOM: true });
const BYTE_PIECE = /^<0x([0-9A-Fa-f]{2})/;

/** For SentencePiece vocabularies: "▁" is a space, `<0xNN>` a byte, and every other piece its own text. */
export class SentencePieceDetokenizer implements Detokenizer {
  text = "";
  tokens: number[] = [];
  #pending: number[] = [];
  #read = 0;

  constructor(
    private readonly codec: Pick<Codec, "tokenOf">,
    private readonly options: { trimSpace: boolean },
  ) {}

  addToken(id: number): void {
    this.tokens.push(id);
    this.#pending.push(...pieceBytes(this.codec.tokenOf(id) ?? ""));
    const text = this.#pendingText();
    // A text that ends in U+FFFD may be waiting for the rest of its last character.
    if (!text.endsWith("\ufffd")) this.#flush(text);
  }

  lastSegment(): string {
    const segment = this.text.slice(this.#read);
    this.#read = this.text.length;
    return segment;
  }

  finalize(): void {
    this.#flush(this.#pendingText());
  }

  reset(): void {
    this.text = "";
    this.tokens = [];
    this.#pending = [];
    this.#read = 0;
  }

  #pendingText(): string {
    return TEXT.decode(Uint8Array.from(this.#pending)).replaceAll("▁", " ");
  }

  #flush(text: string): void {
    const isFirst = this.text === "";
    this.text += isFirst && this.options.trimSpace && text.startsWith(" ") ? text.slice(1) : text;
    this.#pending = [];
  }
}

/** The bytes of a piece in which spaces still are “▁”. */
export function pieceBytes(piece: string): Iterable<number> {
  const byte = BYTE_PIECE.exec(piece);
  return byte ? [Number.parseInt(byte[1]!, 16)] : UTF8.encode(piece);
}
