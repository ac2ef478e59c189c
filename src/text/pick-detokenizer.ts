import type { Codec } from "./codec";
import type { Detokenizer } from "./detokenizer";
import { ByteLevelDetokenizer } from "./detokenizer-bpe";
import { NaiveDetokenizer } from "./detokenizer-naive";
import { SentencePieceDetokenizer } from "./detokenizer-spm";
import type { Component } from "./tokenizer-json";

/** Which detokenizer a tokenizer.json asks for by its decoder. */
export type DetokenizerKind = "spm" | "spm-untrimmed" | "bpe" | "naive";

const METASPACE_DECODER = [
  { type: "Replace", pattern: { String: "▁" }, content: " " },
  { type: "ByteFallback" },
  { type: "Fuse" },
];
const TRIM_DECODER = { type: "Strip", content: " ", start: 1, stop: 0 };

/** Told as mlx-lm does: SentencePiece's decoder to the letter with or without the trim, ByteLevel, or any other. */
export function detokenizerKind(decoder: Component | null): DetokenizerKind {
  if (decoder?.type === "ByteLevel") return "bpe";
  if (Bun.deepEquals(decoder, { type: "Sequence", decoders: [...METASPACE_DECODER, TRIM_DECODER] })) return "spm";
  if (Bun.deepEquals(decoder, { type: "Sequence", decoders: METASPACE_DECODER })) return "spm-untrimmed";
  return "naive";
}

/** @param cleansSpaces whether this tokenizer's decode drops the space before punctuation; the naive kind asks. */
export function makeDetokenizer(codec: Codec, kind: DetokenizerKind, cleansSpaces: boolean): Detokenizer {
  switch (kind) {
    case "bpe":
      return new ByteLevelDetokenizer(codec);
    case "spm":
      return new SentencePieceDetokenizer(codec, { trimSpace: true });
    case "spm-untrimmed":
      return new SentencePieceDetokenizer(codec, { trimSpace: false });
    case "naive":
      return new NaiveDetokenizer(codec, { cleansSpaces });
  }
}
