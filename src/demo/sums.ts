/** Small sums and differences, asked in many ways and answered in one. */
import type { Dice } from "./dice";

/**
 * Pairs of two-digit numbers whose sum is never in the training text, in neither order and not as a subtraction: about
 * one in ten, so that a right answer is adding and not remembering.
 */
export function isHeldOut(a: number, b: number): boolean {
  if (!isTwoDigit(a) || !isTwoDigit(b)) return false;
  let hash = Math.imul(Math.min(a, b) * 100 + Math.max(a, b), 0x9e3779b1) >>> 0;
  hash = Math.imul(hash ^ (hash >>> 15), 0x85ebca6b) >>> 0;
  return (hash ^ (hash >>> 13)) % 10 === 0;
}

function isTwoDigit(n: number): boolean {
  return n >= 10 && n <= 99;
}

/** All held-out pairs, in order. */
export function heldOutPairs(): [a: number, b: number][] {
  const numbers = Array.from({ length: 90 }, (_, i) => i + 10);
  return numbers.flatMap((a) => numbers.filter((b) => isHeldOut(a, b)).map((b): [number, number] => [a, b]));
}

/** The question that evaluation asks. */
export function plainQuestion(a: number, b: number): string {
  return `What is ${a} + ${b}?`;
}

const additions: readonly ((a: number, b: number) => string)[] = [
  plainQuestion,
  (a, b) => `What is ${a} + ${b}`,
  (a, b) => `What's ${a} + ${b}?`,
  (a, b) => `what is ${a} + ${b}?`,
  (a, b) => `what is ${a}+${b}`,
  (a, b) => `What is ${a} plus ${b}?`,
  (a, b) => `what is ${a} plus ${b}`,
  (a, b) => `What is ${a}+${b}?`,
  (a, b) => `What is the sum of ${a} and ${b}?`,
  (a, b) => `How much is ${a} + ${b}?`,
  (a, b) => `How much is ${a} plus ${b}?`,
  (a, b) => `What do ${a} and ${b} make?`,
  (a, b) => `Add ${a} and ${b}.`,
  (a, b) => `Add ${b} to ${a}.`,
  (a, b) => `Please add ${a} and ${b}.`,
  (a, b) => `Can you add ${a} and ${b}?`,
  (a, b) => `Calculate ${a} + ${b}.`,
  (a, b) => `Compute ${a} + ${b}`,
  (a, b) => `${a} + ${b}`,
  (a, b) => `${a}+${b}`,
  (a, b) => `${a} + ${b} = ?`,
  (a, b) => `${a} + ${b} =`,
  (a, b) => `${a}+${b}=`,
  (a, b) => `${a} plus ${b}`,
];

const subtractions: readonly ((a: number, b: number) => string)[] = [
  (a, b) => `What is ${a} - ${b}?`,
  (a, b) => `what is ${a} - ${b}`,
  (a, b) => `What is ${a}-${b}?`,
  (a, b) => `What is ${a} minus ${b}?`,
  (a, b) => `How much is ${a} - ${b}?`,
  (a, b) => `How much is ${a} minus ${b}?`,
  (a, b) => `Subtract ${b} from ${a}.`,
  (a, b) => `Take ${b} away from ${a}.`,
  (a, b) => `Calculate ${a} - ${b}.`,
  (a, b) => `${a} - ${b}`,
  (a, b) => `${a}-${b}`,
  (a, b) => `${a} - ${b} = ?`,
  (a, b) => `${a} - ${b} =`,
  (a, b) => `${a} minus ${b}`,
];

const things = ["apples", "nuts", "books", "coins", "stones", "eggs", "flowers", "cards"];
const people = ["Anna", "Ben", "Clara", "Leo", "Mia", "Tom"];

/** A sum in words, its answer with a sentence. */
function wordProblem(dice: Dice, a: number, b: number): [question: string, answer: string] {
  const [who, what] = [dice.pick(people), dice.pick(things)];
  const other = dice.pick(people.filter((name) => name !== who));
  const sum = `${a} + ${b} = ${a + b}`;
  return dice.pick([
    [
      `${who} has ${a} ${what} and ${other} has ${b} ${what}. How many ${what} do they have together?`,
      `${sum}. Together they have ${a + b} ${what}.`,
    ],
    [
      `${who} has ${a} ${what} and finds ${b} more. How many ${what} does ${who} have now?`,
      `${sum}. ${who} has ${a + b} ${what} now.`,
    ],
    [
      `There are ${a} ${what} in one box and ${b} ${what} in another. How many ${what} are there?`,
      `${sum}. There are ${a + b} ${what}.`,
    ],
  ]);
}

/** Mostly two-digit numbers. */
function operand(dice: Dice): number {
  return dice.chance(0.9) ? dice.between(10, 99) : dice.between(0, 9);
}

/** A question with its answer; never a held-out pair. */
export function sumChat(dice: Dice): [question: string, answer: string] {
  const [a, b] = [operand(dice), operand(dice)];
  if (dice.chance(0.2)) {
    if (isHeldOut(b, a - b)) return sumChat(dice);
    return [dice.pick(subtractions)(a, b), `${a} - ${b} = ${a - b}.`];
  }
  if (isHeldOut(a, b)) return sumChat(dice);
  if (dice.chance(0.08)) return wordProblem(dice, a, b);
  return [dice.pick(additions)(a, b), `${a} + ${b} = ${a + b}.`];
}

/** The number that an answer of the form `27 + 58 = 85.` comes to, or null. */
export function resultOf(answer: string): number | null {
  const found = answer.match(/= (-?\d+)\./);
  return found ? Number(found[1]) : null;
}

/** A question that is beyond the demo, and what it says to it. */
export function hardSumChat(dice: Dice): [question: string, answer: string] {
  return dice.chance(0.5) ? largeNumbers(dice) : otherOperation(dice);
}

function largeNumbers(dice: Dice): [question: string, answer: string] {
  const large = dice.between(100, dice.pick([999, 99_999]));
  const other = dice.between(1, dice.pick([99, 999, 99_999]));
  const ask = dice.pick(dice.chance(0.7) ? additions : subtractions);
  const question = dice.chance(0.5) ? ask(large, other) : ask(other, large);
  return [question, "These numbers are too large for me. I can add and subtract numbers up to 99."];
}

function otherOperation(dice: Dice): [question: string, answer: string] {
  const [a, b] = [dice.between(2, 99), dice.between(2, 99)];
  const sum = `${a} ${dice.pick(["*", "x", "times", "/", "divided by"])} ${b}`;
  const question = dice.pick([`What is ${sum}?`, sum, `How much is ${sum}?`, `Calculate ${sum}.`]);
  return [question, "I have only learned to add and to subtract, not to multiply or divide."];
}
