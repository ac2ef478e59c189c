import { BYTE_OF_CHARACTER } from "./byte-characters";
import type { Codec } from "./codec";
import type { Detokenizer } from "./detokenizer";

const UTF8 = new TextEncoder();
const TEXT = new TextDecoder("utf-8", { ignoreBOM: true });

const SPACE = "Ġ";

/**
 * For byte-level BPE. The first space of the whole text is dropped, as mlx-lm does; a lone space waits for the next
 * token. Unlike there, byte 0 is a byte, and a character outside the byte table is itself to the very end.
 */
export class ByteLevelDetokenizer implements Detokenizer {
  text = "";
  tokens: number[] = [];
  #pending = "";
  #read = 0;

  constructor(private readonly codec: Pick<Codec, "tokenOf">) {}

  addToken(id: number): void {
    this.tokens.push(id);
    // A model whose output layer is padded can name ids that the vocabulary lacks; mlx-lm shows them as "!".
    const token = this.codec.tokenOf(id) ?? "!";
    this.#pending += token;
    const text = decodeBytes(this.#pending);
    if (!text.endsWith("\ufffd") && token !== SPACE) this.#flush(text);
  }

  lastSegment(): string {
    const segment = this.text.slice(this.#read);
    this.#read = this.text.length;
    return segment;
  }

  finalize(): void {
    this.#flush(decodeBytes(this.#pending));
  }

  reset(): void {
    this.text = "";
    this.tokens = [];
    this.#pending = "";
    this.#read = 0;
  }

  #flush(text: string): void {
    this.text += this.text === "" && text.startsWith(" ") ? text.slice(1) : text;
    this.#pending = "";
  }
}

function decodeBytes(characters: string): string {
  const bytes: number[] = [];
  for (const character of characters) {
    const byte = BYTE_OF_CHARACTER.get(character);
    if (byte === undefined) bytes.push(...UTF8.encode(character));
    else bytes.push(byte);
  }
  return TEXT.decode(Uint8Array.from(bytes));
}
