/** The text that the demo model learns: conversations about sums, stories and mlxlm, and stories on their own. */
import { Dice } from "./dice";
import { factChat } from "./facts";
import { story, storyChat } from "./stories";
import { hardSumChat, sumChat } from "./sums";
import { talk } from "./talk";

export const endOfText = "<|endoftext|>";
export const turnStart = "<|im_start|>";
export const turnEnd = "<|im_end|>";

export type Exchange = [question: string, answer: string];

/** A conversation as the chat template writes it. */
export function chat(exchanges: readonly Exchange[], system?: string): string {
  const turn = (role: string, content: string) => `${turnStart}${role}\n${content}${turnEnd}\n`;
  const turns = exchanges.map(([question, answer]) => turn("user", question) + turn("assistant", answer));
  return (system === undefined ? "" : turn("system", system)) + turns.join("");
}

const systemPrompts = [
  "You are a helpful assistant.",
  "You are a helpful assistant. Answer briefly.",
  "You are a friendly assistant.",
  "You are the demo model of mlxlm.",
  "Be polite.",
  "Be brief.",
  "Answer in one sentence.",
];

function exchange(dice: Dice): Exchange {
  return dice.weighted<(dice: Dice) => Exchange>([
    [45, sumChat],
    [5, hardSumChat],
    [22, factChat],
    [14, talk],
    [14, storyChat],
  ])(dice);
}

/** One piece of training text. */
export function document(dice: Dice): string {
  if (dice.chance(0.04)) return story(dice).text + endOfText;
  const exchanges = Array.from({ length: dice.pick([1, 1, 1, 2, 3, 4]) }, () => exchange(dice));
  return chat(exchanges, dice.chance(0.15) ? dice.pick(systemPrompts) : undefined);
}

/** An endless sequence of documents, the same for the same seed. */
export function* documents(seed: number): Generator<string, never, void> {
  const dice = new Dice(seed);
  for (;;) yield document(dice);
}
