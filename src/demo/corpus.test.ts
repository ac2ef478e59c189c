import { describe, expect, test } from "bun:test";
import { documents, turnEnd } from "./corpus";
import { Dice } from "./dice";
import { story, storyKinds } from "./stories";
import { heldOutPairs, isHeldOut, resultOf, sumAnswer } from "./sums";

const take = (seed: number, count: number) => {
  const source = documents(seed);
  return Array.from({ length: count }, () => source.next().value);
};

describe("the demo's text", () => {
  test("is the same for the same seed, and other for another", () => {
    expect(take(1, 200)).toEqual(take(1, 200));
    expect(take(1, 200)).not.toEqual(take(2, 200));
  });

  test("never asks for a held-out sum", () => {
    for (const text of take(1, 20_000)) {
      for (const [, a, b] of text.matchAll(/(\d+) (?:\+|plus|and) (\d+)/g)) {
        expect(isHeldOut(Number(a), Number(b)), text).toBe(false);
      }
    }
  });

  test("has no two stories alike among many", () => {
    const dice = new Dice(5);
    const stories = Array.from({ length: 2000 }, () => story(dice));
    expect(new Set(stories).size).toBeGreaterThan(1980);
  });

  test("every turn ends", () => {
    for (const text of take(3, 500)) expect(text.split("<|im_start|>").length).toBe(text.split(turnEnd).length);
  });
});

describe("sums", () => {
  test("one pair in ten is held out", () => {
    expect(heldOutPairs().length / 8100).toBeGreaterThan(0.08);
    expect(heldOutPairs().length / 8100).toBeLessThan(0.12);
  });

  test("every answer comes to the sum", () => {
    for (let a = 0; a < 100; a += 7) {
      for (let b = 0; b < 100; b++) if (a > 9 === b > 9) expect(resultOf(sumAnswer(a, b))).toBe(a + b);
    }
    expect(sumAnswer(27, 58)).toBe("7 + 8 = 15, so 5 and carry 1. 2 + 5 + 1 = 8. 27 + 58 = 85.");
    expect(resultOf("I don't know.")).toBeNull();
  });
});

test("a story is about whom it was asked for", () => {
  const dice = new Dice(9);
  for (const kind of storyKinds) expect(story(dice, kind)).toContain(kind);
});
