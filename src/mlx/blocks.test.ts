/** Matrices in ggml's blocks: unpacked to the bit, and multiplied, against what the gguf package makes of the same bytes. */
import { describe, expect, test } from "bun:test";
import { bytesInUse, countExactBytes } from "../../test/exact-bytes";
import { blocksOf, unpackedBlocks } from "../../test/parity/gguf-blocks";
import * as mx from ".";

countExactBytes();

const dtypes = ["float32", "float16", "bfloat16"] as const;
type Floats = (typeof dtypes)[number];
/** Sums are taken in float32; then one rounding to the dtype. */
const tolerance: Record<Floats, number> = { float32: 2e-6, float16: 6e-4, bfloat16: 5e-3 };

interface Example {
  name: string;
  code: number;
  block: number;
  bytes: number;
  data: Uint8Array;
  values: Float32Array;
}

const examples = unpackedBlocks.map(([type, values]): Example => {
  const { name, code, block, bytes } = type;
  return { name, code, block, bytes, data: blocksOf(type, values.length / block), values };
});

/** Types that the gguf package does not unpack: one block each, written out. */
const float16 = 0x3400; // 0.25
const small: Example[] = [
  {
    ...{ name: "Q8_K", code: 15, block: 256, bytes: 292 },
    data: Uint8Array.from({ length: 292 }, (_, i) => (i < 4 ? [0, 0, 128, 62][i]! : i * 7)),
    values: Float32Array.from({ length: 256 }, (_, i) => Int8Array.of((i + 4) * 7)[0]! * 0.25),
  },
  {
    ...{ name: "Q1_0", code: 41, block: 128, bytes: 18 },
    data: Uint8Array.from({ length: 18 }, (_, i) => (i < 2 ? [0, float16 >> 8][i]! : i * 37)),
    values: Float32Array.from({ length: 128 }, (_, i) => (((((i >> 3) + 2) * 37) >> (i & 7)) & 1 ? 0.25 : -0.25)),
  },
  {
    ...{ name: "Q2_0", code: 42, block: 64, bytes: 18 },
    data: Uint8Array.from({ length: 18 }, (_, i) => (i < 2 ? [0, float16 >> 8][i]! : i * 37)),
    values: Float32Array.from({ length: 64 }, (_, i) => ((((((i >> 2) + 2) * 37) >> (2 * (i & 3))) & 3) - 1) * 0.25),
  },
];

/** A matrix of (rows, K) numbers of an example's blocks, each row from another place of them, and its values. */
function matrix({ block, bytes, data, values }: Example, rows: number, width: number) {
  const perRow = width / block;
  const count = values.length / block;
  const own = new Uint8Array(rows * perRow * bytes);
  const exact = new Float64Array(rows * width);
  for (let i = 0; i < rows * perRow; i++) {
    const from = (i * 5 + Math.floor(i / perRow)) % count;
    own.set(data.subarray(from * bytes, (from + 1) * bytes), i * bytes);
    exact.set(values.subarray(from * block, (from + 1) * block), i * block);
  }
  return { w: mx.array(own, "uint8", [rows, perRow * bytes]), exact };
}

/** Numbers that every dtype has. */
const draw = (rows: number, width: number) =>
  Float64Array.from({ length: rows * width }, (_, i) => (((i * 37 + (i >> 4) * 11) % 61) - 30) / 32);

function expectProduct(made: mx.Tensor, x: Float64Array, w: Float64Array, [m, n, k]: number[], dtype: Floats) {
  expect(made.dtype).toBe(dtype);
  const got = made.astype("float32").toArray() as Float32Array;
  let [most, off] = [0, 0];
  for (let row = 0; row < m!; row++) {
    for (let column = 0; column < n!; column++) {
      let sum = 0;
      for (let i = 0; i < k!; i++) sum += x[row * k! + i]! * w[column * k! + i]!;
      most = Math.max(most, Math.abs(sum));
      off = Math.max(off, Math.abs(sum - got[row * n! + column]!));
    }
  }
  expect(off / most).toBeLessThan(tolerance[dtype]);
}

/** Rows of x, outputs: one row, some, and more than a tile; outputs that fill no vector. */
const shapes = [
  [1, 37, 2],
  [1, 1, 1],
  [3, 7, 3],
  [8, 5, 1],
  [9, 33, 1],
  [30, 66, 3],
] as const;

describe.each([...examples, ...small].map((example) => [example.name, example] as const))("%s", (_, example) => {
  test("unpacks to the bit", () => {
    mx.scope(() => {
      const { w, exact } = matrix(example, 3, Math.max(256, example.block));
      const numbers = mx.unpackBlocks(w, example.code);
      expect(numbers.shape).toEqual([3, exact.length / 3]);
      // Where the package has −0 for a product with zero, 0 is as good.
      expect((numbers.toArray() as Float32Array).map((x) => x + 0)).toEqual(Float32Array.from(exact, (x) => x + 0));
      for (const dtype of ["float16", "bfloat16"] as const) {
        const narrow = mx.unpackBlocks(w, example.code, dtype);
        expect(narrow.dtype).toBe(dtype);
        expect(narrow.equal(numbers.astype(dtype)).all().item()).toBeTruthy();
      }
    });
  });

  test("products", () => {
    for (const dtype of dtypes) {
      for (const [m, n, blocks] of shapes) {
        mx.scope(() => {
          const width = blocks * Math.max(256, example.block);
          const { w, exact } = matrix(example, n, width);
          const x = draw(m, width);
          const rows = mx.array([...x], dtype, [m, width]);
          expectProduct(mx.blockMatmul(rows, w, example.code), x, exact, [m, n, width], dtype);
        });
      }
    }
  });
});

const example = examples.find(({ name }) => name === "Q6_K")!;

test("operands that do not lie in order, and batches", () => {
  mx.scope(() => {
    const { w, exact } = matrix(example, 10, 512);
    const x = draw(4, 512);
    const rows = mx.array([...x], "float32", [4, 512]);
    const turned = mx.contiguous(rows.T).T;
    expectProduct(mx.blockMatmul(turned, w, example.code), x, exact, [4, 10, 512], "float32");
    expectProduct(mx.blockMatmul(rows.at(0), w, example.code), x.subarray(0, 512), exact, [1, 10, 512], "float32");
    // Every second row, and bytes that are not neighbours.
    const second = Float64Array.from({ length: 5 * 512 }, (_, i) => exact[2 * Math.floor(i / 512) * 512 + (i % 512)]!);
    const every = w.at(mx.slice(undefined, undefined, 2));
    expectProduct(mx.blockMatmul(rows, every, example.code), x, second, [4, 5, 512], "float32");
    expectProduct(mx.blockMatmul(rows, mx.contiguous(w.T).T, example.code), x, exact, [4, 10, 512], "float32");
    // A matrix for each of two heads; a row of one head serves both.
    const heads = w.reshape(2, 5, w.dim(1));
    const both = mx.blockMatmul(rows.reshape(1, 1, 4, 512), heads, example.code);
    expect(both.shape).toEqual([1, 2, 4, 5]);
    expectProduct(mx.contiguous(both.at(0, 1)), x, exact.subarray(5 * 512), [4, 5, 512], "float32");
  });
});

test("experts", () => {
  mx.scope(() => {
    const { w, exact } = matrix(example, 12, 512);
    const experts = w.reshape(3, 4, w.dim(1));
    const dense = mx.array([...exact], "float32", [3, 4, 512]);
    const x = mx.array([...draw(6, 512)], "float32", [6, 1, 1, 512]);
    const chosen = mx.array(
      [
        [0, 2],
        [2, 1],
        [1, 0],
        [2, 0],
        [2, 2],
        [0, 1],
      ],
      "uint32",
    );
    const expected = mx.gatherMm(x, dense.swapaxes(-1, -2), { rhsIndices: chosen });
    const made = mx.gatherBlockMm(x, experts, chosen, example.code);
    expect(made.shape).toEqual(expected.shape);
    expect(made.subtract(expected).abs().max().item()).toBeLessThan(2e-6 * expected.abs().max().item());
    expect(() => mx.gatherBlockMm(x, w, chosen, example.code)).toThrow("rows of whole blocks");
  });
});

test("the gradient of x, and under vmap", () => {
  mx.scope(() => {
    const { w, exact } = matrix(example, 6, 256);
    const dense = mx.array([...exact], "float32", [6, 256]);
    const x = mx.array([...draw(3, 256)], "float32", [3, 256]);
    const gradient = mx.grad((x: mx.Tensor) => mx.blockMatmul(x, w, example.code).square().sum())(x);
    const expected = x.matmul(dense.T).multiply(2).matmul(dense);
    expect(gradient.subtract(expected).abs().max().item()).toBeLessThan(1e-4 * expected.abs().max().item());
    expect(() => mx.eval(mx.grad((w: mx.Tensor) => mx.blockMatmul(x, w, example.code).sum())(w))).toThrow();
  });
});

test("what does not fit is refused", () => {
  mx.scope(() => {
    const { w } = matrix(example, 2, 256);
    const x = mx.zeros([1, 256]);
    expect(() => mx.blockMatmul(mx.zeros([1, 255]), w, example.code)).toThrow("rows of 256 numbers");
    expect(() => mx.blockMatmul(x.astype("int32"), w, example.code)).toThrow("floating point");
    expect(() => mx.blockMatmul(x, w, 3)).toThrow("rows of whole blocks");
    expect(() => mx.blockMatmul(x, w, 9)).toThrow("blocks of type 9");
    expect(() => mx.unpackBlocks(w.astype("int8"), example.code)).toThrow("uint8");
    expect(() => mx.unpackBlocks(w, example.code, "int32")).toThrow("floating point only");
    expect(() => mx.blockVectors(example.code)).toThrow("no grid");
  });
});

test("frees what it makes", () => {
  const { w, x } = mx.scope(() => ({ w: matrix(example, 64, 512).w, x: mx.ones([12, 512], "float16") }));
  const once = () => mx.scope(() => mx.eval(mx.blockMatmul(x, w, example.code), mx.unpackBlocks(w, example.code)));
  once();
  const [handles, bytes] = [mx.liveHandles(), bytesInUse()];
  for (let i = 0; i < 50; i++) once();
  expect(mx.liveHandles()).toBe(handles);
  expect(bytesInUse()).toBeLessThanOrEqual(bytes);
  w.dispose();
  x.dispose();
});
