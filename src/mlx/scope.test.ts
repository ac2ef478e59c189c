import { describe, expect, test } from "bun:test";
import * as mx from ".";

/** Live tensors that `work` leaves behind. */
function leftBy(work: () => void): number {
  const before = mx.liveHandles();
  work();
  return mx.liveHandles() - before;
}

describe("scope", () => {
  test("frees what was made inside", () => {
    const left = leftBy(() =>
      mx.scope(() => {
        mx.ones([3]).add(1).multiply(2);
      }),
    );
    expect(left).toBe(0);
  });

  test("passes what it returns to the enclosing scope, in arrays, objects and maps", () => {
    const left = leftBy(() =>
      mx.scope(() => {
        const [a, { b }, map] = mx.scope(
          () => [mx.ones([1]), { b: mx.zeros([2]) }, new Map([["c", mx.full([3], 7)]])] as const,
        );
        expect([a.item(), b.size, map.get("c")!.toList()]).toEqual([1, 2, [7, 7, 7]]);
      }),
    );
    expect(left).toBe(0);
  });

  test("frees when the body throws, and passes the error on", () => {
    const left = leftBy(() =>
      expect(() =>
        mx.scope(() => {
          mx.ones([4]);
          throw new RangeError("mine");
        }),
      ).toThrow(new RangeError("mine")),
    );
    expect(left).toBe(0);
  });

  test("refuses an async body", () => {
    expect(() => mx.scope(async () => mx.ones([1]))).toThrow(/synchronous/);
  });

  test("an array that was returned and freed is an error, not a crash", () => {
    const x = mx.scope(() => mx.ones([1]));
    x.dispose();
    expect(() => x.item()).toThrow(/used after it was freed/);
    expect(() => x.dispose()).toThrow(/used after it was freed/);
    expect(() => x.add(1)).toThrow(/used after it was freed/);
  });

  test("a stale handle never meets the array that took its slot", () => {
    const stale = mx.scope(() => mx.ones([1]));
    stale.dispose();
    const others = Array.from({ length: 5000 }, () => mx.zeros([1]));
    expect(() => stale.item()).toThrow(/used after it was freed/);
    for (const other of others) other.dispose();
  });
});

describe("keep and release", () => {
  test("a kept tensor outlives its scope", () => {
    const left = leftBy(() => {
      let kept: mx.Tensor | undefined;
      mx.scope(() => {
        kept = mx.keep(mx.full([2], 3));
      });
      expect(kept!.toList()).toEqual([3, 3]);
      mx.release(kept);
      expect(() => kept!.item()).toThrow(/used after it was freed/);
    });
    expect(left).toBe(0);
  });

  test("released inside a scope, it lives until the scope ends", () => {
    const left = leftBy(() => {
      const kept = mx.keep(mx.scope(() => mx.full([1], 5)));
      mx.scope(() => {
        mx.release(kept);
        expect(kept.item()).toBe(5);
      });
      expect(() => kept.item()).toThrow(/used after it was freed/);
    });
    expect(left).toBe(0);
  });

  test("kept twice, it needs two releases", () => {
    const x = mx.keep(mx.keep(mx.scope(() => mx.full([1], 5))));
    mx.release(x);
    expect(x.item()).toBe(5);
    mx.release(x);
    expect(() => x.item()).toThrow(/used after it was freed/);
  });

  test("kept and released within one scope, it is freed once", () => {
    const left = leftBy(() =>
      mx.scope(() => {
        const x = mx.keep(mx.ones([1]));
        mx.release(x);
        expect(x.item()).toBe(1);
      }),
    );
    expect(left).toBe(0);
  });
});
