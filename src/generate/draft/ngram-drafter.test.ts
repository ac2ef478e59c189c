import { describe, expect, test } from "bun:test";
import { NgramDrafter } from "./ngram-drafter";

const drafted = (history: readonly number[], count = 4) => new NgramDrafter().propose(history, count);

describe("drafts from the text", () => {
  test.each<[string, number[], number[]]>([
    ["what followed the last two tokens", [1, 2, 3, 4, 5, 6, 9, 1, 2], [3, 4, 5, 6]],
    ["nothing after a text that is new", [1, 2, 3, 4, 5], []],
    ["nothing after one token that is alike", [1, 2, 3, 4, 2], []],
    ["nothing for one token", [1], []],
    ["what followed the longest run that is alike", [7, 1, 2, 3, 0, 9, 2, 3, 5, 5, 7, 1, 2, 3], [0, 9, 2, 3]],
    ["what followed the latest of equal runs", [1, 2, 3, 1, 2, 4, 8, 1, 2], [4, 8, 1, 2]],
    ["a repetition, as often as it fits", [5, 6, 5, 6, 5, 6], [5, 6, 5, 6]],
    ["the same token again and again", [3, 3, 3], [3, 3, 3, 3]],
  ])("%s", (_, history, expected) => {
    expect(drafted(history)).toEqual(expected);
  });

  test("are as many as asked for at most", () => {
    expect(drafted([1, 2, 3, 4, 5, 6, 9, 1, 2], 2)).toEqual([3, 4]);
    expect(drafted([1, 2, 3, 4, 5, 6, 9, 1, 2], 0)).toEqual([]);
  });

  test("get short where they are wrong, and long again where they are right", () => {
    const drafter = new NgramDrafter();
    const history = [...Array.from({ length: 40 }, (_, i) => i), 50, 0, 1];
    const lengths: number[] = [];
    for (const accepted of [1, 1, 2, 4, 0, 1]) {
      lengths.push(drafter.propose(history, 8).length);
      drafter.settle(history, { from: 0, accepted });
      // The history is the same each time, so that the draft is too.
    }
    expect(lengths).toEqual([8, 1, 2, 4, 8, 1]);
  });

  test("see what is added to the text", () => {
    const drafter = new NgramDrafter();
    expect(drafter.propose([1, 2, 3], 3)).toEqual([]);
    expect(drafter.propose([1, 2, 3, 4, 1, 2], 3)).toEqual([3, 4, 1]);
    expect(drafter.propose([1, 2, 3, 4, 1, 2, 7, 4, 1, 2], 3)).toEqual([7, 4, 1]);
  });
});
