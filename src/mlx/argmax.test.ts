/** Our argmax on a CPU says what MLX's says, to the place. */
import { expect, test } from "bun:test";
import * as mx from ".";

const dtypes = ["float32", "float16", "bfloat16"] as const;

/** By our kernels, and by MLX's own. */
function both(find: () => mx.Tensor): [unknown, unknown] {
  const ours = find().toList();
  mx.enableCpuKernels(false);
  try {
    return [ours, find().toList()];
  } finally {
    mx.enableCpuKernels(true);
  }
}

test.each(dtypes)("%s: the first of equals, in rows of any length", (dtype) => {
  mx.random.seed(4);
  for (const size of [1, 2, 7, 15, 16, 17, 31, 33, 64, 1000, 40_001]) {
    mx.scope(() => {
      // Few numbers, so that many are the highest.
      const few = mx.random.randint(-3, 3, { shape: [5, size] }).astype(dtype);
      const many = mx.random.normal({ shape: [5, size] }).astype(dtype);
      for (const x of [few, many, many.reshape(1, 5, size), many.at(mx.slice(null, null, 2))]) {
        for (const keepdims of [false, true]) {
          const [ours, theirs] = both(() => mx.argmax(x, { axis: -1, keepdims }));
          expect(ours).toEqual(theirs);
        }
      }
      const [ours, theirs] = both(() => mx.argmax(many.transpose(1, 0), { axis: 1 }));
      expect(ours).toEqual(theirs);
    });
  }
});

test.each(dtypes)("%s: NaN and infinities", (dtype) => {
  const [nan, most, least] = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  const rows = [
    [nan, 1, 2],
    [1, nan, 2],
    [nan, nan, nan],
    [least, least, least],
    [least, nan, least],
    [least, 5, least],
    [1, most, most],
    [3, 2, nan],
  ];
  for (const padding of [0, 20]) {
    mx.scope(() => {
      const x = mx.array(
        rows.map((row) => [...row, ...new Array<number>(padding).fill(least)]),
        dtype,
      );
      const [ours, theirs] = both(() => mx.argmax(x, { axis: -1 }));
      expect(ours).toEqual(theirs);
    });
  }
});

test.each(dtypes)("%s: of a large vocabulary, which a GPU has a kernel for", (dtype) => {
  mx.random.seed(5);
  for (const size of [4096, 32_003, 128_256]) {
    mx.scope(() => {
      const few = mx.random.randint(-3, 3, { shape: [3, size] }).astype(dtype);
      const many = mx.random.normal({ shape: [3, size] }).astype(dtype);
      const unaligned = mx.random
        .normal({ shape: [size + 3] })
        .astype(dtype)
        .at(mx.slice(3, null))
        .reshape(1, size);
      const least = mx.full([2, size], Number.NEGATIVE_INFINITY, dtype);
      for (const x of [few, many, unaligned, least]) {
        const rows = x.astype("float32").toList() as number[][];
        const first = rows.map((row) => [row.indexOf(row.reduce((a, b) => Math.max(a, b)))]);
        expect(mx.argmax(x, { axis: -1, keepdims: true }).toList()).toEqual(first);
      }
    });
  }
});

test("along other axes, and of integers, it is MLX's", () => {
  mx.scope(() => {
    const x = mx.array([
      [1, 9, 3],
      [4, 2, 8],
    ]);
    expect(mx.argmax(x, { axis: 0 }).toList()).toEqual([1, 0, 1]);
    expect(mx.argmax(x.astype("int32"), { axis: -1 }).toList()).toEqual([1, 2]);
  });
});
