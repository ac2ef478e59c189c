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

/** The tokens of Kimi's markup, in which a message's parts are elements. */
export const MARKUP_TOKENS = ["<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>"];

/** The tokens of harmony, gpt-oss's markup, in which each message has a channel. */
const HARMONY_TOKENS = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>"];

/** Markers of several tokens, known by the tokens that they are built from. */
const SEQUENCES = [
  { vocab: ["<|channel>", "<channel|>"], start: "<|channel>thought", end: "<channel|>" },
  { vocab: HARMONY_TOKENS, start: "<|channel|>analysis<|message|>", end: "<|end|>" },
  { vocab: MARKUP_TOKENS, start: "<|open|>think<|sep|>", end: "<|close|>think<|sep|>" },
];

/** The model's thinking markers, or null for one that does not think. */
export async function inferThinking(codec: Pick<Codec, "idOf" | "encodeBatch">): Promise<Thinking | null> {
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

/** Markers of markups around an answer, which are no part of it, by the tokens that tell the markup. */
const STRUCTURAL = [
  {
    vocab: MARKUP_TOKENS,
    answer: "<|open|>response<|sep|>",
    markers: ["<|open|>response<|sep|>", "<|close|>response<|sep|>", "<|close|>message<|sep|>"],
  },
  {
    vocab: HARMONY_TOKENS,
    answer: "<|channel|>final<|message|>",
    markers: ["<|start|>assistant", "<|channel|>final<|message|>", "<|channel|>commentary<|message|>", "<|end|>"],
  },
];

function structure(codec: Pick<Codec, "idOf">) {
  return STRUCTURAL.find(({ vocab }) => vocab.every((token) => codec.idOf(token) !== null));
}

/** The model's. */
export function structuralMarkers(codec: Pick<Codec, "idOf">): string[] {
  return structure(codec)?.markers ?? [];
}

/** The marker before what the user is told, where a markup has one. */
export function answerMarker(codec: Pick<Codec, "idOf">): string | null {
  return structure(codec)?.answer ?? null;
}

/** Whether a prompt ends inside a thought, so that the answer begins in it. */
export function opensThought(prompt: readonly number[], { startTokens, endTokens }: Thinking): boolean {
  return lastIndexOf(prompt, startTokens) > lastIndexOf(prompt, endTokens);
}

/** Where a sequence of tokens begins for the last time, or -1. */
function lastIndexOf(tokens: readonly number[], sequence: readonly number[]): number {
  for (
    let at = tokens.lastIndexOf(sequence[0]!);
    at >= 0;
    at = at > 0 ? tokens.lastIndexOf(sequence[0]!, at - 1) : -1
  ) {
    if (sequence.every((token, i) => tokens[at + i] === token)) return at;
  }
  return -1;
}
