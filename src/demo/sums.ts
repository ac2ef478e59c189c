/** Small sums, answered as one learns them at school: digit by digit, with the carry. */
import type { Dice } from "./dice";

/**
 * Pairs that are never in the training text: about one in ten of the two-digit pairs, so that right answers on them are
 * adding, not remembering.
 */
export function isHeldOut(a: number, b: number): boolean {
  if (a < 10 || b < 10) return false;
  let hash = Math.imul(a * 100 + b, 0x9e3779b1) >>> 0;
  hash ^= hash >>> 15;
  return hash % 10 === 0;
}

/** All held-out pairs, in order. */
export function heldOutPairs(): [number, number][] {
  const numbers = Array.from({ length: 90 }, (_, i) => i + 10);
  return numbers.flatMap((a) => numbers.filter((b) => isHeldOut(a, b)).map((b): [number, number] => [a, b]));
}

const questions = [
  (a: number, b: number) => `What is ${a} + ${b}?`,
  (a: number, b: number) => `What is ${a} plus ${b}?`,
  (a: number, b: number) => `How much is ${a} + ${b}?`,
  (a: number, b: number) => `Add ${a} and ${b}.`,
  (a: number, b: number) => `${a} + ${b} = ?`,
  (a: number, b: number) => `${a} + ${b}`,
];

/** The question that evaluation asks. */
export const plainQuestion = questions[0]!;

/** `7 + 8 = 15, so 5 and carry 1. 2 + 5 + 1 = 8. 27 + 58 = 85.` */
export function sumAnswer(a: number, b: number): string {
  const result = `${a} + ${b} = ${a + b}.`;
  if (a < 10 && b < 10) return result;
  const [onesA, onesB] = [a % 10, b % 10];
  const ones = onesA + onesB;
  const carry = ones >= 10 ? 1 : 0;
  const first = `${onesA} + ${onesB} = ${ones}${carry ? `, so ${ones % 10} and carry 1` : ""}.`;
  const [tensA, tensB] = [Math.floor(a / 10), Math.floor(b / 10)];
  const second = `${tensA} + ${tensB}${carry ? " + 1" : ""} = ${tensA + tensB + carry}.`;
  return `${first} ${second} ${result}`;
}

/** The number that an answer comes to, or null. */
export function resultOf(answer: string): number | null {
  const numbers = answer.match(/= (\d+)\.?\s*$/);
  return numbers ? Number(numbers[1]) : null;
}

/** A question with its answer; never a held-out pair. */
export function sum(dice: Dice): [question: string, answer: string] {
  for (;;) {
    const [a, b] = dice.chance(0.08) ? [dice.below(10), dice.below(10)] : [10 + dice.below(90), 10 + dice.below(90)];
    if (!isHeldOut(a!, b!)) return [dice.pick(questions)(a!, b!), sumAnswer(a!, b!)];
  }
}
