import { expect, test } from "bun:test";
import * as mx from "../mlx";
import { type BlockSelection, selectBlocks } from "./block-selection";
import { causalMask } from "./masks";

/** Which keys the token at `position` sees, by the scores of the keys up to it. */
function seen(scores: readonly number[], position: number, { blockSize, topK, local }: BlockSelection): boolean[] {
  const blockOf = (key: number) => Math.floor(key / blockSize);
  const own = blockOf(position);
  const best = Array.from({ length: own + 1 }, (_, block) => {
    const keys = scores.filter((_, key) => key <= position && blockOf(key) === block);
    return { block, score: block > own - local ? Number.POSITIVE_INFINITY : Math.max(...keys) };
  });
  const chosen = best.sort((a, b) => b.score - a.score).slice(0, topK);
  return scores.map((_, key) => key <= position && chosen.some(({ block }) => block === blockOf(key)));
}

const random = (...shape: number[]) => mx.random.normal({ shape });

for (const choice of [
  { blockSize: 3, topK: 2, local: 1 },
  { blockSize: 4, topK: 2, local: 0 },
  { blockSize: 2, topK: 3, local: 2 },
]) {
  test(`blocks of ${choice.blockSize}, ${choice.topK} of them, ${choice.local} of the nearest`, () => {
    mx.random.seed(3);
    mx.scope(() => {
      for (const [length, total] of [
        [11, 11],
        [4, 13],
        [1, 12],
      ] as const) {
        const scores = random(1, 2, length, total);
        const mask = length === 1 ? null : "causal";
        const chosen = selectBlocks(scores, mask, total - length, choice).toList();
        const expected = (scores.toList() as number[][][][]).map((heads) =>
          heads.map((rows) => rows.map((row, i) => seen(row, total - length + i, choice))),
        );
        expect(chosen).toEqual(expected);
      }
    });
  });
}

test("a row behind padding sees what it sees alone", () => {
  mx.random.seed(4);
  mx.scope(() => {
    const choice = { blockSize: 3, topK: 2, local: 1 };
    for (const length of [1, 9]) {
      const [total, padding] = [11, 2];
      const scores = random(2, 2, length, total);
      const mask = causalMask(length, { offset: total - length, leftPadding: mx.array([0, padding], "int32") });
      const offsets = mx.array([total - length, total - length - padding], "int32");
      const [whole, padded] = selectBlocks(scores, mask, offsets, choice).split(2, 0) as [mx.Tensor, mx.Tensor];
      const [first, second] = scores.split(2, 0) as [mx.Tensor, mx.Tensor];
      const alone = (x: mx.Tensor) => selectBlocks(x, "causal", x.dim(3) - length, choice).toList();
      expect(whole.toList()).toEqual(alone(first));
      expect(mx.sliceAxis(padded, -1, padding, total).toList()).toEqual(
        alone(mx.sliceAxis(second, -1, padding, total)),
      );
      expect(mx.sliceAxis(padded, -1, 0, padding).astype("int32").sum().item()).toBe(0);
    }
  });
});
