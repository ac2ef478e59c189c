import { expect, test } from "bun:test";
import * as mx from "../mlx";
import { KVCache, RotatingKVCache } from "./cache";
import { attentionMask, causalMask, fullAttention, layerMasks, type Mask, slidingWindow } from "./masks";

const digits = (mask: Mask) => (mask as mx.Tensor).astype("int32").toList();

test("causal, windowed and padded masks", () => {
  mx.scope(() => {
    expect(digits(causalMask(2, { offset: 1 }))).toEqual([
      [1, 1, 0],
      [1, 1, 1],
    ]);
    expect(digits(causalMask(2, { offset: 2, window: 2 }))).toEqual([
      [0, 1, 1, 0],
      [0, 0, 1, 1],
    ]);
    const padding = (...counts: number[]) => mx.array(counts, "int32");
    expect(digits(causalMask(2, { offset: 1, leftPadding: padding(0, 2) }))).toEqual([
      [
        [
          [1, 1, 0],
          [1, 1, 1],
        ],
      ],
      [
        [
          [0, 0, 0],
          [0, 0, 1],
        ],
      ],
    ]);
    expect(digits(causalMask(2, { offset: 1, rightPadding: padding(0, 1) }))).toEqual([
      [
        [
          [1, 1, 0],
          [1, 1, 1],
        ],
      ],
      [
        [
          [1, 1, 0],
          [1, 1, 0],
        ],
      ],
    ]);
  });
});

test("without a cache, a mask is an array only where a window hides something or it is asked for", () => {
  mx.scope(() => {
    const of = (length: number, options?: object) => attentionMask(mx.zeros([1, length, 4]), undefined, options);
    expect(of(1)).toBeNull();
    expect(of(3)).toBe("causal");
    expect(of(3, { window: 3 })).toBe("causal");
    expect(of(1, { window: 3 })).toBeNull();
    expect(digits(of(3, { window: 2 }))).toEqual([
      [1, 0, 0],
      [1, 1, 0],
      [0, 1, 1],
    ]);
    expect(digits(of(2, { asArray: true }))).toEqual([
      [1, 0],
      [1, 1],
    ]);
  });
});

test("layers with the same window share a mask, made from the first one's cache", () => {
  const cache = [new RotatingKVCache(4), new KVCache(), new RotatingKVCache(4)];
  mx.scope(() => {
    const masks = layerMasks(mx.zeros([1, 6, 4]), [slidingWindow(4), fullAttention, slidingWindow(4)], cache);
    expect(masks[1]).toBe("causal");
    expect(masks[0]).toBeInstanceOf(mx.Tensor);
    expect(masks[2]).toBe(masks[0]!);
  });
});
