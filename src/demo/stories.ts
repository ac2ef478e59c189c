/** Small stories: a hero, a wish, what stands in the way, and how it ends. Every part knows the others. */
import type { Dice } from "./dice";

interface Hero {
  name: string;
  kind: string;
  /** he, she */
  they: string;
  /** him, her */
  them: string;
  /** his, her */
  their: string;
}

const kinds = ["fox", "rabbit", "bear", "mouse", "owl", "cat", "dog", "duck", "hedgehog", "frog", "squirrel", "goat"];
const boys = ["Tom", "Max", "Ben", "Leo", "Sam", "Finn", "Otto", "Paul"];
const girls = ["Mia", "Lily", "Anna", "Zoe", "Ella", "Nora", "Rosa", "Ida"];
const adjectives = ["little", "small", "young", "brave", "shy", "clever", "kind", "curious"];
const places = [
  "in a green forest",
  "by a quiet lake",
  "on a high hill",
  "near the old mill",
  "at the edge of a village",
];

export const storyKinds = kinds;

const capital = (text: string) => text[0]!.toUpperCase() + text.slice(1);

function hero(dice: Dice, kind: string): Hero {
  return dice.chance(0.5)
    ? { name: dice.pick(boys), kind, they: "he", them: "him", their: "his" }
    : { name: dice.pick(girls), kind, they: "she", them: "her", their: "her" };
}

function friendOf(dice: Dice, other: Hero): Hero {
  for (;;) {
    const friend = hero(dice, dice.pick(kinds));
    if (friend.name !== other.name && friend.kind !== other.kind) return friend;
  }
}

function opening(dice: Dice, { name, kind, they }: Hero): string {
  const [what, where] = [dice.pick(adjectives), dice.pick(places)];
  return dice.pick([
    `Once upon a time, there was a ${what} ${kind} named ${name}. ${capital(they)} lived ${where}.`,
    `There once was a ${what} ${kind} called ${name} who lived ${where}.`,
    `A ${what} ${kind} named ${name} lived ${where}.`,
  ]);
}

function ending(dice: Dice, { name, they }: Hero, friend: Hero): string {
  return dice.pick([
    `From that day on, ${name} and ${friend.name} were best friends.`,
    `${name} smiled all the way home. It had been a very good day.`,
    `That night, ${name} slept well, and ${they} dreamed of the day.`,
    `And so ${name} learned that it is good to have a friend.`,
    `They laughed together until the sun went down.`,
  ]);
}

/** Something was lost and a friend finds it. */
function lostThing(dice: Dice, h: Hero, f: Hero): string[] {
  const thing = dice.pick([
    "red ball",
    "blue hat",
    "silver key",
    "warm scarf",
    "golden bell",
    "wooden boat",
    "yellow kite",
  ]);
  const spot = dice.pick([
    "under a big leaf",
    "behind a stone",
    "in the tall grass",
    "under the bridge",
    "in a hollow tree",
  ]);
  return [
    `${h.name} had a ${thing} that ${h.they} loved very much. One day, the ${thing} was gone.`,
    dice.pick([
      `${h.name} looked everywhere, but ${h.they} could not find it. ${capital(h.they)} began to cry.`,
      `${capital(h.they)} looked at home and in the garden, but it was not there. ${h.name} was sad.`,
    ]),
    `Then a ${f.kind} named ${f.name} came by. "Why are you sad?" asked ${f.name}.`,
    `"I lost my ${thing}," said ${h.name}. "I will help you look," said ${f.name}.`,
    `They looked together for a long time. At last, ${f.name} found the ${thing} ${spot}.`,
    `"Thank you, ${f.name}!" said ${h.name}. ${capital(h.they)} was so happy that ${h.they} jumped for joy.`,
  ];
}

/** Something is made and shared. */
function cooking(dice: Dice, h: Hero, f: Hero): string[] {
  const dish = dice.pick(["an apple cake", "a pot of soup", "a berry pie", "a big bread", "honey cookies"]);
  const missing = dice.pick(["honey", "milk", "salt", "butter", "flour"]);
  return [
    `One morning, ${h.name} wanted to make ${dish}. But there was no ${missing} in the house.`,
    `"What shall I do?" thought ${h.name}. ${capital(h.they)} went to see ${f.name} the ${f.kind}.`,
    dice.pick([
      `"I have plenty of ${missing}," said ${f.name}. "Take as much as you need."`,
      `${f.name} had a full jar of ${missing} and gave half of it to ${h.name}.`,
    ]),
    `${h.name} ran home and worked all morning. Soon the whole house smelled good.`,
    `Then ${h.they} knocked at ${f.name}'s door. "Come and eat with me," said ${h.name}.`,
    `They sat at the table and shared ${dish.replace(/^(an?) /, "the ")}. It was the best that they had ever had.`,
  ];
}

/** A fear is overcome with help. */
function fear(dice: Dice, h: Hero, f: Hero): string[] {
  const [scare, place, brave] = dice.pick([
    ["the dark", "a deep cave", "went in first with a small lamp"],
    ["deep water", "a wide river", "swam slowly at the side"],
    ["the storm", "a barn on the hill", "sang a song against the thunder"],
    ["high places", "the tallest tree", "climbed just one branch ahead"],
  ] as const);
  return [
    `${h.name} was afraid of ${scare}. ${capital(h.they)} never told anyone.`,
    `One day, ${h.their} friend ${f.name} the ${f.kind} wanted to go to ${place}.`,
    `"I can't," said ${h.name} in a small voice. "I am afraid of ${scare}."`,
    `${f.name} did not laugh. "I was afraid too," said ${f.name}. "We can go together, step by step."`,
    `So ${f.name} ${brave}, and ${h.name} came after. ${capital(h.their)} heart beat fast.`,
    `But nothing bad happened. "I did it!" cried ${h.name}. ${capital(h.they)} was proud.`,
  ];
}

/** Someone small helps someone in need. */
function rescue(dice: Dice, h: Hero, f: Hero): string[] {
  const [trouble, way] = dice.pick([
    ["stuck in the mud", "pulled with a long rope"],
    ["caught in a thorny bush", "cut the thorns one by one"],
    ["sitting on a stone in the middle of the river", "built a bridge of branches"],
    ["lost in the fog", "rang a bell to show the way"],
  ] as const);
  return [
    `One day, ${h.name} went for a walk and heard someone call for help.`,
    `It was ${f.name} the ${f.kind}, who was ${trouble}. "Please help me!" called ${f.name}.`,
    dice.pick([
      `${h.name} was not very strong, but ${h.they} had a good idea.`,
      `${h.name} thought hard. Then ${h.they} knew what to do.`,
    ]),
    `${capital(h.they)} ${way}. It took a long time, but ${h.name} did not give up.`,
    `At last, ${f.name} was safe. "You saved me," said ${f.name}. "How can I thank you?"`,
    `"You can be my friend," said ${h.name}.`,
  ];
}

/** A quarrel ends in a shared prize. */
function quarrel(dice: Dice, h: Hero, f: Hero): string[] {
  const prize = dice.pick([
    "a big red apple",
    "a shiny shell",
    "a sweet melon",
    "a soft blue feather",
    "a round pumpkin",
  ]);
  const short = prize.replace(/^a /, "the ");
  return [
    `One day, ${h.name} and ${f.name} the ${f.kind} found ${prize} at the same time.`,
    `"It is mine!" said ${h.name}. "No, it is mine!" said ${f.name}. They both pulled, and both were angry.`,
    dice.pick([
      `An old turtle saw them. "Why don't you share?" asked the turtle.`,
      `Then it began to rain, and they had to sit under the same tree. Soon they felt silly.`,
    ]),
    `${h.name} looked at ${f.name}. "I am sorry," said ${h.name}. "${capital(short)} can be for both of us."`,
    `"I am sorry too," said ${f.name}. So they shared ${short}, and they were happy.`,
  ];
}

const plots = [lostThing, cooking, fear, rescue, quarrel];

/** One story about a hero of the given kind; its title is how one would ask for it. */
export function story(dice: Dice, kind: string = dice.pick(kinds)): string {
  const h = hero(dice, kind);
  const f = friendOf(dice, h);
  return [opening(dice, h), ...dice.pick(plots)(dice, h, f), ending(dice, h, f)].join(" ");
}
