/**
 * What happens in the stories. Each plot goes from a wish or a trouble to its solution, and every sentence knows the
 * ones before it: who is there, what was lost, what the weather is like.
 */
import { type Character, capital, swims, withArticle } from "./characters";
import type { Dice } from "./dice";

export interface Plot {
  /** What one would ask for: "a lost kite". */
  topic: string;
  /** Sentences, from the first trouble to its end. */
  sentences: string[];
  /** What was learned. */
  moral: string;
}

type PlotWriter = (dice: Dice, hero: Character, friend: Character) => Plot;

const lostThing: PlotWriter = (dice, h, f) => {
  const thing = dice.pick(["ball", "hat", "key", "scarf", "bell", "boat", "kite", "drum", "ring", "book"]);
  const color = dice.pick(["red", "blue", "green", "yellow", "golden", "silver"]);
  const [searched, spot] = dice.pick([
    ["under the bed and behind the door", "in the tall grass"],
    ["in the garden and on the roof", "under a big leaf"],
    ["along the path and by the well", "behind an old stone"],
    ["in every corner of the house", "in a hollow tree"],
    ["by the river and on the bridge", "between the roots of an oak"],
  ] as const);
  return {
    topic: `a lost ${thing}`,
    sentences: [
      dice.pick([
        `${h.name} had a ${color} ${thing} that ${h.they} loved very much.`,
        `The thing that ${h.name} loved most was a ${color} ${thing}, a gift from ${h.their} grandmother.`,
      ]),
      dice.pick([`One morning, the ${thing} was gone.`, `But one day, ${h.they} could not find it.`]),
      `${h.name} looked ${searched}, but the ${thing} was not there.`,
      dice.pick([`${capital(h.they)} sat down and began to cry.`, `${capital(h.they)} was very sad.`]),
      `Then a ${f.kind} named ${f.name} came by and asked, "What is the matter?"`,
      `"I lost my ${color} ${thing}," said ${h.name}.`,
      dice.pick([
        `"Don't cry," said ${f.name}. "I will help you look."`,
        `"Then let us look for it together," said ${f.name}.`,
      ]),
      dice.pick([`They searched until the sun was low.`, `They searched for a long time, step by step.`]),
      `At last, ${f.name} saw something ${color} ${spot}. It was the ${thing}!`,
      dice.pick([
        `"Thank you, ${f.name}!" said ${h.name}, and ${h.they} jumped for joy.`,
        `${h.name} was so happy that ${h.they} hugged ${f.name} and would not let go.`,
      ]),
    ],
    moral: "what is lost is found sooner when someone helps you look",
  };
};

const cooking: PlotWriter = (dice, h, f) => {
  const [dish, short] = dice.pick([
    ["an apple cake", "the cake"],
    ["a pot of soup", "the soup"],
    ["a berry pie", "the pie"],
    ["a loaf of bread", "the bread"],
    ["a plate of cookies", "the cookies"],
    ["a tower of pancakes", "the pancakes"],
  ] as const);
  const missing = dice.pick(["honey", "milk", "salt", "butter", "flour"]);
  return {
    topic: dice.pick(["cooking", "sharing", dish]),
    sentences: [
      `One morning, ${h.name} wanted to make ${dish}, but there was no ${missing} in the house.`,
      dice.pick([
        `"What shall I do?" thought ${h.name}. Then ${h.they} remembered ${f.name} the ${f.kind}.`,
        `So ${h.they} went next door to ${f.name} the ${f.kind}.`,
      ]),
      `"Do you have a little ${missing} for me?" asked ${h.name}.`,
      dice.pick([
        `"I have plenty," said ${f.name}. "Take as much as you need."`,
        `"I have only one cup left," said ${f.name}, "but you may have half of it."`,
      ]),
      dice.pick([
        `${h.name} ran home and worked all morning. Soon the whole house smelled good.`,
        `${h.name} went home, and stirred, and waited, and stirred again.`,
      ]),
      `When ${short} ${short === "the cookies" || short === "the pancakes" ? "were" : "was"} ready, ${h.they} did not eat alone.`,
      `${capital(h.they)} knocked at ${f.name}'s door and said, "Come and eat with me. Half of the ${missing} was yours."`,
      dice.pick([
        `They sat in the sun and ate until nothing was left.`,
        `They ate together at the big table, and it was the best meal of the year.`,
      ]),
    ],
    moral: "food tastes better when it is shared",
  };
};

const fear: PlotWriter = (dice, h, f) => {
  const [scare, place, help, after] = dice.pick([
    ["the dark", "the deep cave", "went in first with a small lamp", "The cave was full of shining stones"],
    ["the fog", "the far meadow", "walked ahead with a bell", "In the meadow the sun was shining"],
    [
      "thunder",
      "the barn on the hill",
      "sang a song against the noise",
      "When the storm was over, there was a rainbow",
    ],
    [
      "high places",
      "the tallest tree",
      "climbed just one branch ahead",
      "From the top they could see the whole valley",
    ],
    ["strangers", "the market in the village", "walked close by", "The people there smiled and gave them apples"],
  ] as const);
  return {
    topic: dice.pick(["being brave", `someone who is afraid of ${scare}`]),
    sentences: [
      dice.pick([
        `${h.name} was afraid of ${scare}, but ${h.they} never told anyone.`,
        `There was one thing that ${h.name} feared: ${scare}.`,
      ]),
      `One day, ${h.their} friend ${f.name} the ${f.kind} wanted to go to ${place}.`,
      `"I can't go there," said ${h.name} in a small voice. "I am afraid of ${scare}."`,
      dice.pick([
        `${f.name} did not laugh. "I was afraid too, the first time," said ${f.name}. "We can go together."`,
        `"Everyone is afraid of something," said ${f.name}. "Take my hand, and we will go step by step."`,
      ]),
      `So ${f.name} ${help}, and ${h.name} came after.`,
      dice.pick([
        `${capital(h.their)} heart beat fast, but ${h.they} did not turn back.`,
        `It was hard at first, and then it was not so hard.`,
      ]),
      `${after}. "I did it!" cried ${h.name}.`,
      dice.pick([`${capital(h.they)} had never been so proud.`, `${f.name} was just as proud as ${h.name}.`]),
    ],
    moral: "being brave means to be afraid and to go on all the same",
  };
};

const rescue: PlotWriter = (dice, h, f) => {
  const [trouble, first, idea] = dice.pick([
    [
      "stuck in the mud",
      "pulled with both hands, but the mud was too strong",
      "tied a rope to a tree, and together they pulled",
    ],
    [
      "caught in a thorny bush",
      "tried to push the bush aside, but the thorns were sharp",
      "bent the thorns back one by one with a stick",
    ],
    [
      "sitting on a stone in the middle of the river",
      "tried to swim there, but the water was too fast",
      "laid long branches from stone to stone",
    ],
    [
      "lost in the fog",
      "called as loudly as possible, but the fog ate every word",
      "rang a bell again and again to show the way",
    ],
    [
      "at the bottom of a deep hole",
      "tried to reach down, but the hole was too deep",
      "let down an old ladder from the barn",
    ],
  ] as const);
  return {
    topic: dice.pick(["a rescue", "someone who needs help"]),
    sentences: [
      dice.pick([
        `One day, ${h.name} went for a walk and heard someone call for help.`,
        `One evening, on the way home, ${h.name} heard a small voice: "Help! Help!"`,
      ]),
      `It was ${f.name} the ${f.kind}, who was ${trouble}.`,
      `"Please help me!" called ${f.name}. "I have been here since the morning."`,
      `${h.name} ${first}.`,
      dice.pick([
        `Then ${h.they} had an idea.`,
        `${capital(h.they)} sat down and thought hard. Then ${h.they} knew what to do.`,
      ]),
      `${capital(h.they)} ${idea}.`,
      dice.pick([`It took a long time, but ${h.name} did not give up.`, `Slowly, very slowly, it worked.`]),
      `At last, ${f.name} was safe. "You saved me," said ${f.name}. "How can I thank you?"`,
      dice.pick([`"You can be my friend," said ${h.name}.`, `"Just come and play with me tomorrow," said ${h.name}.`]),
    ],
    moral: "a good idea is worth more than strong arms",
  };
};

const quarrel: PlotWriter = (dice, h, f) => {
  const prize = dice.pick([
    "red apple",
    "shiny shell",
    "sweet melon",
    "blue feather",
    "round pumpkin",
    "smooth white stone",
  ]);
  const short = prize.split(" ").at(-1)!;
  const turn = dice.pick([
    `An old turtle saw them and asked, "Who will be happy when you are both angry?"`,
    `Then it began to rain, and they had to sit under the same tree. After a while they felt silly.`,
    `They pulled so hard that both of them fell into a puddle. They looked at each other, and then they had to laugh.`,
  ]);
  return {
    topic: dice.pick(["a quarrel", "two friends who quarrel", "sharing"]),
    sentences: [
      `One day, ${h.name} and ${f.name} the ${f.kind} found a ${prize} at the same time.`,
      `"It is mine!" said ${h.name}. "I saw it first."`,
      `"No, it is mine!" said ${f.name}. "I touched it first."`,
      dice.pick([`They pulled, and they shouted, and both of them were angry.`, `Neither of them wanted to let go.`]),
      turn,
      `"I am sorry," said ${h.name}. "The ${short} can belong to both of us."`,
      dice.pick([`"I am sorry too," said ${f.name}.`, `"Yes," said ${f.name}. "That is much better."`]),
      short === "apple" || short === "melon" || short === "pumpkin"
        ? `So they cut the ${short} into two halves, and both halves were the same size.`
        : `So the ${short} stayed one week with ${h.name} and one week with ${f.name}.`,
    ],
    moral: "a friend is worth more than any treasure",
  };
};

const practice: PlotWriter = (dice, h, f) => {
  const skills = [
    ["whistle", "whistling", "only blew air", "Make your mouth as round as a berry", "whistled a whole song"],
    ["skate", "skating", "fell on the ice", "Bend your knees a little", "made a perfect circle on the ice"],
    ["paint", "painting", "spilled the colors", "Look twice before you paint once", "painted a tree that looked real"],
    ["juggle", "juggling", "dropped every ball", "Begin with two balls", "kept three balls in the air"],
    ["read", "reading", "mixed up all the letters", "Take one letter at a time", "read a whole page without help"],
    ["swim", "swimming", "swallowed a lot of water", "Breathe out slowly", "swam across the whole pond"],
  ] as const;
  const [skill, doing, wrong, tip, done] = dice.pick(swims(h) ? skills.slice(0, -1) : skills);
  return {
    topic: dice.pick([`learning to ${skill}`, `someone who learns to ${skill}`]),
    sentences: [
      `More than anything, ${h.name} wanted to learn to ${skill}.`,
      dice.pick([
        `But each time ${h.they} tried, ${h.they} ${wrong}.`,
        `On the first day, ${h.they} ${wrong}. On the second day, it was no better.`,
      ]),
      dice.pick([`"I will never learn it," ${h.they} said.`, `"Maybe ${doing} is not for me," ${h.they} thought.`]),
      `${f.name} the ${f.kind} had seen it all. "It took me a whole summer to learn," said ${f.name}.`,
      `"${tip}," said ${f.name}, "and try once more every day."`,
      dice.pick([
        `So ${h.name} tried once more, that day and every day.`,
        `So ${h.name} came back each morning, even in the rain.`,
      ]),
      dice.pick([`Little by little, it went better.`, `After two weeks, something was different.`]),
      `And one fine day, ${h.name} ${done}!`,
      dice.pick([`"I knew that you could do it," said ${f.name}.`, `${f.name} clapped and cheered.`]),
    ],
    moral: "everyone who is good at something was a beginner once",
  };
};

const gift: PlotWriter = (dice, h, f) => {
  const [plan, made] = dice.pick([
    ["a big drum from the shop", "a small drum from an old pot"],
    ["a fine coat", "a warm scarf from soft wool"],
    ["a golden lamp", "a little lamp from a glass and a candle"],
    ["a new boat", "a paper boat with a white sail"],
    ["a box of sweets", "a box of honey cookies"],
  ] as const);
  const short = made.split(" from ")[0]!.split(" with ")[0]!.replace(/^a /, "");
  return {
    topic: dice.pick(["a birthday", "a gift", "a birthday gift"]),
    sentences: [
      `The next day was the birthday of ${f.name} the ${f.kind}, ${h.name}'s best friend.`,
      `${h.name} wanted to buy ${plan}, but ${h.they} had only one coin.`,
      dice.pick([
        `"One coin is not enough," said the shopkeeper.`,
        `${capital(h.they)} counted it twice, but it was still one coin.`,
      ]),
      dice.pick([`${h.name} walked home with ${h.their} head down.`, `On the way home, ${h.name} was very quiet.`]),
      `Then ${h.they} had an idea. All night long, ${h.they} worked at the kitchen table and made ${made}.`,
      `In the morning, ${h.name} was worried. "It is not from the shop," ${h.they} said. "I made it myself."`,
      dice.pick([
        `${f.name} looked at the ${short} for a long time. "Nobody has ever made something just for me," said ${f.name}.`,
        `"You made this for me?" said ${f.name}. "Then it is the best gift of all."`,
      ]),
      `From then on, the ${short} had the best place in ${f.name}'s house.`,
    ],
    moral: "the best gifts are made by hand",
  };
};

const garden: PlotWriter = (dice, h, f) => {
  const plant = dice.pick(["sunflower", "pumpkin", "apple tree", "rose", "strawberry"]);
  return {
    topic: dice.pick(["a garden", "a seed", withArticle(plant)]),
    sentences: [
      `In spring, ${f.name} the ${f.kind} gave ${h.name} a tiny seed. "It will be ${withArticle(plant)}," said ${f.name}.`,
      `${h.name} put it into the earth and gave it water. Then ${h.they} sat down and waited.`,
      dice.pick([
        `Nothing happened that day, and nothing the next day.`,
        `A whole week went by, and there was nothing to see.`,
      ]),
      `"The seed is asleep," said ${h.name}. "Shall I dig it up?"`,
      dice.pick([
        `"No," said ${f.name}. "Good things need time."`,
        `"Don't do that," said ${f.name}. "It is growing where you can't see it."`,
      ]),
      `So ${h.name} gave it water every day and told it stories in the evening.`,
      `One morning, after a warm rain, there was a small green leaf.`,
      dice.pick([
        `"It is awake!" cried ${h.name}, and ${h.they} danced around it.`,
        `${h.name} ran to tell ${f.name} the news.`,
      ]),
      `By the end of summer, the ${plant} was the finest in the whole valley.`,
    ],
    moral: "good things need time",
  };
};

const storm: PlotWriter = (dice, h, f) => {
  const [broken, need, parts] = dice.pick([
    ["the bridge over the river", "Nobody could cross", ["carried the wood", "tied the ropes"]],
    ["the roof of the school", "The rain came in", ["held the ladder", "laid the new tiles"]],
    ["the old mill", "There was no flour for bread", ["turned the wheel", "mended the sails"]],
    ["the fence around the meadow", "The sheep ran everywhere", ["dug the holes", "set the posts"]],
  ] as const);
  return {
    topic: dice.pick(["a storm", "working together"]),
    sentences: [
      `One night, a storm broke ${broken}. ${need}.`,
      `${h.name} wanted to mend it alone, but it was far too much work for one.`,
      dice.pick([`By noon ${h.they} was tired, and almost nothing was done.`, `After an hour, ${h.their} arms hurt.`]),
      `${f.name} the ${f.kind} came along. "Why don't you ask us?" said ${f.name}.`,
      dice.pick([
        `"I thought that you were all busy," said ${h.name}.`,
        `"I did not want to be a bother," said ${h.name}.`,
      ]),
      `"Never too busy for a friend," said ${f.name}, and went from door to door.`,
      `Soon everyone was there. ${h.name} ${parts[0]}, ${f.name} ${parts[1]}, and the smallest ones brought water and bread.`,
      `Before the sun went down, the work was done, and it was better than before.`,
    ],
    moral: "many hands make light work",
  };
};

const truth: PlotWriter = (dice, h, f) => {
  const [thing, how] = dice.pick([
    ["the blue vase", "played with a ball in the house"],
    ["the big mirror", "ran through the room too fast"],
    ["the kitchen window", "threw a stone at a nut"],
    ["the old clock", "wanted to see what was inside"],
    ["the honey jar", "climbed up to the highest shelf"],
  ] as const);
  return {
    topic: dice.pick(["telling the truth", `someone who broke ${thing}`]),
    sentences: [
      `One afternoon, ${h.name} was at the house of ${f.name} the ${f.kind}. ${capital(h.they)} ${how}, and crash! ${capital(thing)} was broken.`,
      `Nobody had seen it. "I could say that it was the wind," thought ${h.name}.`,
      dice.pick([
        `But ${h.their} stomach felt heavy, as if ${h.they} had eaten a stone.`,
        `But then ${h.they} could not look ${f.name} in the eye.`,
      ]),
      `So ${h.name} went to ${f.name} and said, "I broke ${thing}. I am sorry."`,
      dice.pick([`${f.name} was quiet for a moment.`, `${f.name} looked at the pieces and sighed.`]),
      `"Thank you for telling me," said ${f.name}. "A thing can be mended, but it is hard to mend a lie."`,
      `Together they picked up the pieces, and ${h.name} promised to be more careful.`,
      dice.pick([
        `On the way home, ${h.their} heart was light again.`,
        `After that, they had tea and talked as if nothing had happened.`,
      ]),
    ],
    moral: "the truth is sometimes hard, but it makes the heart light",
  };
};

const newcomer: PlotWriter = (dice, h, f) => {
  const game = dice.pick(["play hide and seek", "play tag", "play ball", "fly kites", "build a hut"]);
  return {
    topic: dice.pick(["a new friend", "friendship", "someone who is new"]),
    sentences: [
      `One day, a ${f.kind} named ${f.name} moved into the empty house nearby.`,
      dice.pick([
        `${f.name} did not know anyone and sat alone in front of the door.`,
        `When the others played, ${f.name} only watched from far away.`,
      ]),
      `The others said, "That one never talks to us." But ${h.name} remembered how it feels to be alone.`,
      dice.pick([
        `${capital(h.they)} took two pears and went over.`,
        `The next morning, ${h.they} went over with a warm bread.`,
      ]),
      `"I am ${h.name}," ${h.they} said. "Would you like to ${game} with us?"`,
      dice.pick([`"I don't know how," said ${f.name} softly.`, `"I was afraid to ask," said ${f.name}.`]),
      `"Then I will show you," said ${h.name}.`,
      `They played until it was dark, and nobody laughed as loudly as ${f.name}.`,
    ],
    moral: "one kind word can open a door",
  };
};

const treasure: PlotWriter = (dice, h, f) => {
  const [start, middle, end] = dice.pick([
    ["the old oak", "the stone bridge", "the hill with three trees"],
    ["the mill", "the sleeping rock", "the island in the lake"],
    ["the well", "the yellow field", "the cave behind the waterfall"],
  ] as const);
  const found = dice.pick([
    "a chest with nothing in it but a letter: The treasure is the friend who came with you.",
    "a box full of old toys, enough for all the children in the village.",
    "a bag of seeds, and from them grew the most beautiful flowers.",
    "a small silver flute, and its song made everyone want to dance.",
  ]);
  return {
    topic: dice.pick(["a treasure", "an adventure", "a map"]),
    sentences: [
      `One rainy day, ${h.name} found an old map under the floor. A red cross showed where a treasure lay.`,
      `${capital(h.they)} showed it to ${f.name} the ${f.kind}. "Let us go at once!" said ${f.name}.`,
      `They walked from ${start} to ${middle}, and there the path ended.`,
      dice.pick([`"We are lost," said ${f.name}.`, `"Perhaps we should turn back," said ${f.name}.`]),
      `But ${h.name} held the map up to the light and saw a thin line that led to ${end}.`,
      dice.pick([
        `They were tired, but they went on and told each other jokes.`,
        `They shared their last piece of bread and went on.`,
      ]),
      `At ${end} they dug and dug, until they hit something hard.`,
      `It was ${found}`,
    ],
    moral: "the way is half of the adventure",
  };
};

export const plots: readonly PlotWriter[] = [
  lostThing,
  cooking,
  fear,
  rescue,
  quarrel,
  practice,
  gift,
  garden,
  storm,
  truth,
  newcomer,
  treasure,
];
