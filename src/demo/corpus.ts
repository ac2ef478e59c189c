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

/** A story's first words, and the rest of it: "Once upon a time" is answered by what follows. */
function storyBegun(dice: Dice): [question: string, answer: string] {
  const words = story(dice).split(" ");
  const said = dice.pick([4, 4, 4, 6, 8, 10, 12]);
  const comma = words[said - 1]!.endsWith(",") && dice.chance(0.7);
  const question = words.slice(0, said).join(" ");
  const rest = words.slice(said).join(" ");
  return comma ? [question.slice(0, -1), `, ${rest}`] : [question, rest];
}

/** Shares of the kinds of text, in hundredths; what is left are stories without a question. */
export interface Mix {
  sums: number;
  facts: number;
  longerChats: number;
  storyChats: number;
}

/** Stories are the longest: by tokens they are most of the text. */
const evenMix: Mix = { sums: 34, facts: 14, longerChats: 6, storyChats: 36 };

/** One piece of training text. */
export function document(dice: Dice, { sums, facts, longerChats, storyChats }: Mix = evenMix): string {
  const roll = dice.below(100);
  if (roll < sums) return chat([sum(dice)]);
  if (roll < sums + facts) return chat([fact(dice)]);
  if (roll < sums + facts + longerChats) return chat([fact(dice), dice.chance(0.5) ? sum(dice) : fact(dice)]);
  if (roll < sums + facts + longerChats + storyChats) {
    return chat([dice.chance(0.25) ? storyBegun(dice) : storyRequest(dice)]);
  }
  return story(dice) + endOfText;
}

/** An endless sequence of documents. */
export function* documents(seed: number, mix?: Mix): Generator<string, never, void> {
  const dice = new Dice(seed);
  for (;;) yield document(dice, mix);
}
