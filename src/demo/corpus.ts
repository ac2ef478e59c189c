/** The text that the demo model learns: chats about sums, stories and mlxlm, and stories on their own. */
import { Dice } from "./dice";
import { fact } from "./facts";
import { story, storyKinds } from "./stories";
import { sum } from "./sums";

export const endOfText = "<|endoftext|>";
export const turnStart = "<|im_start|>";
export const turnEnd = "<|im_end|>";

/** As the chat template writes them. */
export function chat(turns: readonly [question: string, answer: string][]): string {
  const written = turns.map(
    ([question, answer]) => `${turnStart}user\n${question}${turnEnd}\n${turnStart}assistant\n${answer}${turnEnd}\n`,
  );
  return written.join("");
}

function storyRequest(dice: Dice): [question: string, answer: string] {
  const kind = dice.pick(storyKinds);
  const article = /^[aeiou]/.test(kind) ? "an" : "a";
  const question = dice.pick([
    "Tell me a story.",
    "Tell me a short story.",
    "Please tell me a story.",
    "Write a story.",
    `Tell me a story about ${article} ${kind}.`,
    `Write a short story about ${article} ${kind}.`,
    `A story about ${article} ${kind}, please.`,
  ]);
  return [question, story(dice, question.includes(kind) ? kind : undefined)];
}

/** Shares of the kinds of text, in hundredths; what is left are stories without a question. */
export interface Mix {
  sums: number;
  facts: number;
  longerChats: number;
  storyChats: number;
}

/** Sums need the most repetition at first. */
export const firstMix: Mix = { sums: 52, facts: 22, longerChats: 6, storyChats: 13 };

/** Who is who in a story is learned last, from many of them. */
export const storyMix: Mix = { sums: 14, facts: 10, longerChats: 4, storyChats: 42 };

/** One piece of training text. */
export function document(dice: Dice, { sums, facts, longerChats, storyChats }: Mix = firstMix): string {
  const roll = dice.below(100);
  if (roll < sums) return chat([sum(dice)]);
  if (roll < sums + facts) return chat([fact(dice)]);
  if (roll < sums + facts + longerChats) return chat([fact(dice), dice.chance(0.5) ? sum(dice) : fact(dice)]);
  if (roll < sums + facts + longerChats + storyChats) return chat([storyRequest(dice)]);
  return story(dice) + endOfText;
}

/** An endless sequence of documents. */
export function* documents(seed: number, mix?: Mix): Generator<string, never, void> {
  const dice = new Dice(seed);
  for (;;) yield document(dice, mix);
}
