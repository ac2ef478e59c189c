/** What is built and never evaluated, beside what is evaluated. Groups of several processes are tested in test/distributed. */
import { expect, test } from "bun:test";
import * as mx from ".";

const { evaluatedHereOrNever } = mx.distributed;

test("what is never evaluated may hold more of its kind, and may fail", () => {
  const shape = mx.scope(() =>
    evaluatedHereOrNever(() => {
      const inner = evaluatedHereOrNever(() => mx.distributed.allSum(mx.ones([2, 3])));
      return mx.distributed.allSum(inner).shape;
    }),
  );
  expect(shape).toEqual([2, 3]);
  expect(() =>
    evaluatedHereOrNever(() => {
      throw new Error("in the midst");
    }),
  ).toThrow("in the midst");
  expect(mx.scope(() => mx.distributed.allSum(mx.array([1, 2])).toList())).toEqual([1, 2]);
});

test("no tensor stays behind", () => {
  const before = mx.liveHandles();
  mx.scope(() => void evaluatedHereOrNever(() => mx.distributed.allSum(mx.ones([4]))));
  expect(mx.liveHandles()).toBe(before);
});
