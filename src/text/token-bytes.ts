/** What each token of a vocabulary writes, as bytes: a character may be spread over several tokens. */
import { BYTE_OF_CHARACTER } from "./byte-characters";
import { pieceBytes } from "./detokenizer-spm";
import type { Component } from "./tokenizer-json";

const UTF8 = new TextEncoder();

/** How the pieces of a vocabulary stand for bytes. */
type Writing =
  /** A character a byte, as GPT-2 writes them. */
  | "byte-level"
  /** "▁" is a space, `<0xNN>` a byte. */
  | "byte-fallback"
  /** Only decoding tells. */
  | "decoded";

function writingOf(decoder: Component | null): Writing {
  const parts = decoder?.type === "Sequence" ? ((decoder.decoders as Component[] | undefined) ?? []) : [decoder];
  if (parts.some((part) => part?.type === "ByteLevel")) return "byte-level";
  if (parts.some((part) => part?.type === "ByteFallback")) return "byte-fallback";
  return "decoded";
}

export interface TokenSource {
  decoder: Component | null;
  tokenOf(id: number): string | null;
  /** Whether a token is special: no part of a text. */
  isSpecial(token: string): boolean;
  decode(ids: number[]): string;
}

/**
 * The bytes that each of the first `count` ids adds to a text behind another token. Special tokens and ids without a
 * token add none.
 */
export function tokenBytes(source: TokenSource, count: number): Uint8Array[] {
  const bytesOf = bytesBy(writingOf(source.decoder), source);
  return Array.from({ length: count }, (_, id) => {
    const token = source.tokenOf(id);
    return token === null || source.isSpecial(token) ? new Uint8Array() : bytesOf(token, id);
  });
}

function bytesBy(writing: Writing, source: TokenSource): (token: string, id: number) => Uint8Array {
  switch (writing) {
    case "byte-level":
      return byteLevel;
    case "byte-fallback":
      return (token) => Uint8Array.from(pieceBytes(token.replaceAll("▁", " ")));
    case "decoded": {
      // Decoders trim and join at a text's beginning: a token is looked at behind another one.
      const anchor = anchorOf(source);
      const before = anchor === null ? "" : source.decode([anchor]);
      return (_, id) => {
        const text = source.decode(anchor === null ? [id] : [anchor, id]);
        return UTF8.encode(text.startsWith(before) ? text.slice(before.length) : text);
      };
    }
  }
}

function byteLevel(token: string): Uint8Array {
  const bytes: number[] = [];
  for (const character of token) {
    const byte = BYTE_OF_CHARACTER.get(character);
    if (byte === undefined) bytes.push(...UTF8.encode(character));
    else bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}

/** A token of letters, behind which others show what they add. */
function anchorOf({ tokenOf }: TokenSource): number | null {
  for (let id = 0; id < 4096; id++) if (/^[a-z]+$/.test(tokenOf(id) ?? "")) return id;
  return null;
}
