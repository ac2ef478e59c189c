/** Who the stories are about. */
import type { Dice } from "./dice";

export interface Character {
  name: string;
  /** "fox", "girl" */
  kind: string;
  /** "he" or "she" */
  they: string;
  /** "him" or "her" */
  them: string;
  /** "his" or "her" */
  their: string;
}

export const animals = [
  "badger",
  "bear",
  "beaver",
  "cat",
  "deer",
  "dog",
  "dragon",
  "duck",
  "fox",
  "frog",
  "goat",
  "hedgehog",
  "lamb",
  "mouse",
  "otter",
  "owl",
  "pony",
  "rabbit",
  "sparrow",
  "squirrel",
  "turtle",
  "wolf",
] as const;

const boys = "Adam Ben Carl Dan Emil Finn Hugo Jack Leo Max Nico Oscar Otto Paul Rory Sam Theo Tim Tom Will".split(" ");
const girls = "Ada Amy Anna Bella Clara Ella Emma Ida Iris June Lily Lucy Mia Molly Nora Rosa Ruby Sara Tess Zoe".split(
  " ",
);

function character(dice: Dice, kind: string): Character {
  const isBoy = kind === "boy" || (kind !== "girl" && dice.chance(0.5));
  return isBoy
    ? { name: dice.pick(boys), kind, they: "he", them: "him", their: "his" }
    : { name: dice.pick(girls), kind, they: "she", them: "her", their: "her" };
}

/** Mostly an animal, sometimes a child. */
export function hero(dice: Dice): Character {
  return character(dice, dice.chance(0.15) ? dice.pick(["boy", "girl"]) : dice.pick(animals));
}

/** An animal of another kind, with another name. */
export function friendOf(dice: Dice, { name, kind }: Character): Character {
  for (;;) {
    const friend = character(dice, dice.pick(animals));
    if (friend.name !== name && friend.kind !== kind) return friend;
  }
}

/** Whether it would be odd if this one could not swim. */
export function swims({ kind }: Character): boolean {
  return ["beaver", "duck", "frog", "otter", "turtle"].includes(kind);
}

/** "a fox", "an owl" */
export function withArticle(noun: string): string {
  return `${/^[aeiou]/.test(noun) ? "an" : "a"} ${noun}`;
}

/** "A fox" from "a fox" */
export function capital(text: string): string {
  return text[0]!.toUpperCase() + text.slice(1);
}
