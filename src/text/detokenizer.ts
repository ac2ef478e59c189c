/** Text as tokens arrive, one at a time, and never half a character. */
export interface Detokenizer {
  /** The text so far, as far as it is certain. */
  readonly text: string;
  /** The ids added since the last reset. */
  readonly tokens: readonly number[];
  addToken(id: number): void;
  /** What the text has gained since the last call, possibly "". */
  lastSegment(): string;
  /** Flushes what was held back: no more tokens will come. */
  finalize(): void;
  /** Starts over with an empty text. */
  reset(): void;
}
