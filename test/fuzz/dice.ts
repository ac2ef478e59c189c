/** Seeded choices for fuzzers. */

/** Whole numbers below a limit. */
export type Dice = (limit: number) => number;

/** Mulberry32: the same numbers for a seed. */
export function dice(seed: number): Dice {
  let state = seed;
  return (limit) => {
    state = (state + 0x6d2b79f5) | 0;
    let x = Math.imul(state ^ (state >>> 15), 1 | state);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((x ^ (x >>> 14)) >>> 0) % limit;
  };
}

export const pick = <T>(roll: Dice, choices: readonly T[]): T => choices[roll(choices.length)]!;
