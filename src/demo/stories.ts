/** Short stories from a grammar: somebody, somewhere, a plot, and what was learned. */
import { type Character, capital, friendOf, hero, withArticle } from "./characters";
import type { Dice } from "./dice";
import { plots } from "./plots";

export interface Story {
  text: string;
  /** What it is about, as one would ask for it: "a fox", "a lost kite", "a girl named Mia". */
  subjects: string[];
}

const traits = ["little", "small", "young", "cheerful", "shy", "clever", "kind", "curious", "merry", "gentle"];
const places = [
  "in a green forest",
  "by a quiet lake",
  "on a high hill",
  "near an old mill",
  "at the edge of a village",
  "in a house with a red roof",
  "beside a wide river",
  "at the foot of a mountain",
];

function opening(dice: Dice, { name, kind, they }: Character): string {
  const who = withArticle(`${dice.pick(traits)} ${kind}`);
  const where = dice.pick(places);
  return dice.pick([
    `Once upon a time, there was ${who} named ${name}. ${capital(they)} lived ${where}.`,
    `Once upon a time, ${who} named ${name} lived ${where}.`,
    `There once was ${who} called ${name}, who lived ${where}.`,
    `${capital(where)}, there lived ${who} named ${name}.`,
  ]);
}

function ending(dice: Dice, { name }: Character, friend: Character, moral: string): string {
  const last = dice.pick([
    `From that day on, ${name} and ${friend.name} were the best of friends.`,
    `That night, ${name} slept well and dreamed of the day.`,
    `${name} smiled all the way home.`,
    `${name} and ${friend.name} still talk about that day.`,
  ]);
  return dice.pick([
    `${last} And ${name} never forgot that ${moral}.`,
    `So ${name} learned that ${moral}. ${last}`,
    last,
  ]);
}

/** One of some millions. */
export function story(dice: Dice): Story {
  const someone = hero(dice);
  const friend = friendOf(dice, someone);
  const { topic, sentences, moral } = dice.pick(plots)(dice, someone, friend);
  return {
    text: [opening(dice, someone), sentences.join(" "), ending(dice, someone, friend, moral)].join("\n\n"),
    subjects: [
      withArticle(someone.kind),
      `${withArticle(someone.kind)} named ${someone.name}`,
      `${withArticle(someone.kind)} and ${withArticle(friend.kind)}`,
      `${someone.name} the ${someone.kind}`,
      topic,
      `${withArticle(someone.kind)} and ${topic}`,
    ],
  };
}

/** A request and the story that answers it. */
export function storyChat(dice: Dice): [request: string, answer: string] {
  const { text, subjects } = story(dice);
  const about = dice.chance(0.7) ? ` about ${dice.pick(subjects)}` : "";
  const request = dice.pick([
    `Tell me a story${about}.`,
    `Tell me a story${about}`,
    `Tell me a short story${about}.`,
    `tell me a story${about}`,
    `Please tell me a story${about}.`,
    `Write a story${about}.`,
    `Write a short story${about}.`,
    `Write me a story${about}, please.`,
    `Can you tell me a story${about}?`,
    `I would like to hear a story${about}.`,
    `A story${about}, please.`,
    `Do you know a story${about}?`,
  ]);
  return [request, text];
}
