/** Small talk: greetings, thanks, what the demo model is, and what it says when it does not know. */
import type { Dice } from "./dice";
import { ask, type Topic } from "./facts";

const hello = "Hello! I am the demo model of mlxlm. Ask me for a small sum, a short story, or something about mlxlm.";
const unknown =
  "I don't know that: I am only a small demo model. I can add and subtract, tell a short story, and answer questions about mlxlm.";

const greetings: readonly Topic[] = [
  {
    questions: [
      "hello",
      "hello",
      "Hello",
      "Hello!",
      "Hi",
      "Hi!",
      "hi",
      "Hi there!",
      "Hey",
      "Good morning!",
      "Good evening!",
      "Hello there.",
    ],
    answers: [hello],
  },
  {
    questions: [
      "How are you?",
      "How are you today?",
      "How do you do?",
      "How is it going?",
      "Are you well?",
      "What's up?",
    ],
    answers: ["I am well, thank you! Would you like a sum, a story, or a fact about mlxlm?"],
  },
  {
    questions: [
      "Thank you!",
      "Thank you.",
      "Thanks",
      "Thanks!",
      "Thank you very much.",
      "Great, thanks!",
      "That was nice.",
      "Well done!",
      "Good.",
      "Nice story!",
    ],
    answers: ["You are welcome! Ask me more if you like."],
  },
  {
    questions: ["Goodbye", "Goodbye!", "Bye", "Bye!", "See you!", "Good night!", "See you tomorrow."],
    answers: ["Goodbye! Have a good day."],
  },
  {
    questions: ["Ok", "Okay.", "Yes", "Yes, please.", "No", "Hm.", "I see.", "Cool!", "test", "Testing"],
    answers: ["Ask me for a sum like 12 + 34, for a story, or for something about mlxlm."],
  },
];

const self: readonly Topic[] = [
  {
    questions: [
      "Who are you?",
      "What are you?",
      "What is your name?",
      "Tell me about yourself.",
      "Are you a language model?",
      "Introduce yourself.",
      "Are you a robot?",
      "Am I talking to a person?",
    ],
    answers: [
      "I am the demo model of mlxlm: a very small language model, trained by mlxlm itself. I can add and subtract, tell a short story, and answer questions about mlxlm.",
    ],
  },
  {
    questions: [
      "What can you do?",
      "Help",
      "help",
      "Help me!",
      "How can you help me?",
      "What can I ask you?",
      "What do you know?",
      "Can you help me?",
    ],
    answers: [
      "I can add and subtract numbers up to 99, tell a short story, and answer questions about mlxlm. For more, load a larger model with --model.",
    ],
  },
  {
    questions: ["How large are you?", "How many parameters do you have?", "How big are you?", "Are you a large model?"],
    answers: ["I have about seven million parameters. Useful models have a thousand times as many."],
  },
  {
    questions: [
      "How were you trained?",
      "Who made you?",
      "Who trained you?",
      "What were you trained on?",
      "Where do you come from?",
      "How were you made?",
    ],
    answers: [
      "mlxlm trained me, on text that a script writes: short stories, small sums, and facts about mlxlm. The command bun run demo makes me anew.",
    ],
  },
  {
    questions: [
      "Are you smart?",
      "Are you ChatGPT?",
      "Can I trust you?",
      "Are you always right?",
      "Do you make mistakes?",
      "Are you as good as GPT?",
    ],
    answers: ["I am only a small demo, and I can be wrong. For real work, load a larger model with --model."],
  },
  {
    questions: [
      "Do you speak German?",
      "Which languages do you speak?",
      "Can you speak French?",
      "Do you know Spanish?",
      "Bonjour!",
      "Hallo!",
      "Hola!",
    ],
    answers: ["I only know English. Larger models speak many languages."],
  },
];

const places =
  "France Spain Italy Japan Brazil Canada Egypt Kenya India China Peru Norway Poland Texas Rome Berlin London Paris Mars".split(
    " ",
  );
const nouns =
  "sea moon sun rain city train car phone movie game song cat dog house bank doctor book computer weather war price school team king river mountain coffee music money love health history art stock market recipe dinner flight hotel letter email".split(
    " ",
  );
const works = [
  "Hamlet",
  "Faust",
  "the Bible",
  "Don Quixote",
  "War and Peace",
  "Yesterday",
  "Star Wars",
  "the Mona Lisa",
];
const jobs = [
  "a poem",
  "an essay",
  "a letter",
  "a song",
  "a joke",
  "an email",
  "a list",
  "a function",
  "a program",
  "a speech",
  "a haiku",
];
const verbs = ["work", "move", "exist", "grow", "shine", "cost so much", "fall", "begin", "end", "matter"];

/** A question that the demo was not made for, and what it says to it. */
function unknownChat(dice: Dice): [question: string, answer: string] {
  const [place, noun, job, verb] = [dice.pick(places), dice.pick(nouns), dice.pick(jobs), dice.pick(verbs)];
  const question = dice.pick([
    `What is the capital of ${place}?`,
    `Where is ${place}?`,
    `How many people live in ${place}?`,
    `What is the weather in ${place}?`,
    `Tell me about ${place}.`,
    `How far is it to ${place}?`,
    `Who is the president of ${place}?`,
    `Who wrote ${dice.pick(works)}?`,
    `Who made ${dice.pick(works)}?`,
    `Write ${job} about the ${noun}.`,
    `Write ${job}.`,
    `Write me ${job} for my ${noun}.`,
    `Why is the ${noun} so ${dice.pick(["big", "blue", "old", "slow", "loud", "cold", "expensive"])}?`,
    `Why is the sky blue?`,
    `Why does the ${noun} ${verb}?`,
    `How does the ${noun} ${verb}?`,
    `When did the ${noun} ${verb}?`,
    `What is the best ${noun}?`,
    `What is the meaning of life?`,
    `What is the ${noun}?`,
    `What do you think about the ${noun}?`,
    `Which ${noun} should I buy?`,
    `Where can I find a ${noun}?`,
    `Do you like my ${noun}?`,
    `What time is it?`,
    `What day is it today?`,
    `What should I eat tonight?`,
    `Translate the ${noun} into ${dice.pick(["German", "French", "Spanish", "Latin"])}.`,
    `Summarize this ${noun}.`,
    `Solve this equation.`,
    `Give me advice about my ${noun}.`,
    `I have a problem with my ${noun}.`,
    `Is the ${noun} real?`,
  ]);
  return ask(dice, { questions: [question], answers: [unknown] });
}

/** A question with its answer. */
export function talk(dice: Dice): [question: string, answer: string] {
  if (dice.chance(0.4)) return unknownChat(dice);
  return ask(dice, dice.pick(dice.chance(0.5) ? greetings : self));
}
