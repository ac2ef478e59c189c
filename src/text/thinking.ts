/** The markers between which a model thinks aloud, told from its vocabulary. */
import type { Codec } from "./codec";

export interface Thinking {
  readonly start: string;
  readonly end: string;
  readonly startTokens: number[];
  readonly endTokens: number[];
}

const SINGLE_TOKENS = [
  ["<think>", "</think>"],
  ["<longcat_think>", "</longcat_think>"],
  ["<|think:start|>", "<|think:end|>"],
] as const;

/** Markers of several tokens, known by the tokens that they are built from. */
const SEQUENCES = [
  { vocab: ["<|channel>", "<channel|>"], start: "<|channel>thought", end: "<channel|>" },
  {
    vocab: ["<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>"],
    start: "<|open|>think<|sep|>",
    end: "<|close|>think<|sep|>",
  },
] as const;

/** The model's thinking markers, or null for one that does not think. */
export async function inferThinking(codec: Codec): Promise<Thinking | null> {
  for (const [start, end] of SINGLE_TOKENS) {
    const [startId, endId] = [codec.idOf(start), codec.idOf(end)];
    if (startId !== null && endId !== null) return { start, end, startTokens: [startId], endTokens: [endId] };
  }
  for (const { vocab, start, end } of SEQUENCES) {
    if (vocab.some((token) => codec.idOf(token) === null)) continue;
    const [startTokens, endTokens] = await codec.encodeBatch([start, end], { addSpecialTokens: false });
    return { start, end, startTokens: startTokens!, endTokens: endTokens! };
  }
  return null;
}
