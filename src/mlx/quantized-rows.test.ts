/** Products with quantized weights and several rows, dense and by expert, against the unpacked weights in float32. */
import { describe, expect, test } from "bun:test";
import { bytesInUse, countExactBytes } from "../../test/exact-bytes";
import * as mx from ".";

countExactBytes();

const tolerance = { bfloat16: 0.02, float16: 0.004 };
type Half = keyof typeof tolerance;

function expectClose(product: mx.Tensor, expected: mx.Tensor, dtype: Half) {
  expect(product.shape).toEqual(expected.shape);
  expect(product.dtype).toBe(dtype);
  const exact = expected.astype("float32");
  const off = product.astype("float32").subtract(exact).abs().max().item() / exact.abs().max().item();
  expect(off).toBeLessThan(tolerance[dtype]);
}

const draw = (shape: number[], dtype: mx.Dtype) => mx.random.normal({ shape }).astype(dtype);

const formats = [
  ...[2, 3, 4, 5, 6, 8].map((bits) => ({ mode: "affine", bits, groupSize: 64 }) as const),
  { mode: "affine", bits: 4, groupSize: 32 },
  { mode: "affine", bits: 4, groupSize: 128 },
  { mode: "mxfp4", bits: 4, groupSize: 32 },
  { mode: "mxfp8", bits: 8, groupSize: 32 },
  { mode: "nvfp4", bits: 4, groupSize: 16 },
] as const satisfies readonly mx.Quantization[];

/** Weights packed, and what they stand for. */
function weights(shape: number[], how: mx.Quantization, dtype: Half) {
  const [w, scales, biases = null] = mx.quantize(draw(shape, dtype), how);
  return { packed: [w!, scales!, biases] as const, dense: mx.dequantize(w!, scales!, biases, how).astype("float32") };
}

describe("several rows", () => {
  for (const how of formats) {
    for (const dtype of ["bfloat16", "float16"] as const) {
      test(`${how.mode}, ${how.bits} bits in groups of ${how.groupSize}, ${dtype}`, () => {
        for (const [rows, outputs, inputs] of [
          [2, 40, 128],
          [9, 129, 384],
          [33, 64, 1152],
          [65, 300, 256],
          [130, 64, 128],
        ] as const) {
          mx.scope(() => {
            const { packed, dense } = weights([outputs, inputs], how, dtype);
            const x = draw([1, rows, inputs], dtype);
            const product = mx.quantizedMatmul(x, ...packed, how);
            expectClose(product, x.astype("float32").matmul(dense.T), dtype);
          });
        }
      });
    }
  }

  test("not transposed, and rows that do not lie one after the other", () => {
    mx.scope(() => {
      const how = { bits: 4, groupSize: 64 };
      const { packed, dense } = weights([128, 256], how, "bfloat16");
      const x = draw([5, 128], "bfloat16");
      expectClose(
        mx.quantizedMatmul(x, ...packed, { ...how, transpose: false }),
        x.astype("float32").matmul(dense),
        "bfloat16",
      );
      const turned = draw([256, 7], "bfloat16").T;
      expectClose(mx.quantizedMatmul(turned, ...packed, how), turned.astype("float32").matmul(dense.T), "bfloat16");
    });
  });

  test("the gradient of x", () => {
    mx.scope(() => {
      const how = { bits: 4, groupSize: 64 };
      const { packed, dense } = weights([96, 128], how, "bfloat16");
      for (const rows of [3, 200]) {
        const [x, cotangent] = [draw([rows, 128], "bfloat16"), draw([rows, 96], "bfloat16")];
        const [, [gradient]] = mx.vjp((x: mx.Tensor) => mx.quantizedMatmul(x, ...packed, how), [x], [cotangent]);
        expectClose(gradient!, cotangent.astype("float32").matmul(dense), "bfloat16");
      }
    });
  });
});

describe("experts", () => {
  const experts = 6;
  /** x (uses, 1, K) by the weights (uses, N, K) of each use. */
  const byUse = (x: mx.Tensor, dense: mx.Tensor, indices: mx.Tensor) =>
    x.astype("float32").matmul(dense.take(indices, 0).swapaxes(-1, -2));

  for (const how of formats) {
    test(`${how.mode}, ${how.bits} bits in groups of ${how.groupSize}`, () => {
      mx.scope(() => {
        const { packed, dense } = weights([experts, 72, 256], how, "bfloat16");
        // Two tokens of three experts each, which share the token's row.
        const shared = draw([1, 2, 1, 1, 256], "bfloat16");
        const chosen = mx.array(
          [
            [
              [0, 5, 2],
              [2, 3, 1],
            ],
          ],
          "uint32",
        );
        const product = mx.gatherQmm(shared, ...packed, { ...how, rhsIndices: chosen });
        expectClose(product, byUse(shared, dense, chosen), "bfloat16");
        // A row for each use, in the order of experts: one has none, one has more than a tile.
        const sorted = mx.array([0, 0, ...new Array<number>(70).fill(1), 3, 4, 4, 5], "uint32");
        const rows = draw([sorted.size, 1, 256], "bfloat16");
        const all = mx.gatherQmm(rows, ...packed, { ...how, rhsIndices: sorted, sortedIndices: true });
        expectClose(all, byUse(rows, dense, sorted), "bfloat16");
        const own = mx.gatherQmm(rows, ...packed, { ...how, rhsIndices: sorted });
        expectClose(own, byUse(rows, dense, sorted), "bfloat16");
      });
    });
  }
});

test("frees what it makes", () => {
  const how = { bits: 4, groupSize: 64 };
  const { w, x } = mx.scope(() => {
    const { packed } = weights([64, 128], how, "bfloat16");
    return { w: packed, x: draw([12, 128], "bfloat16") };
  });
  const once = () => mx.scope(() => mx.eval(mx.quantizedMatmul(x, ...w, how)));
  once();
  const [handles, bytes] = [mx.liveHandles(), bytesInUse()];
  for (let i = 0; i < 50; i++) once();
  expect(mx.liveHandles()).toBe(handles);
  expect(bytesInUse()).toBeLessThanOrEqual(bytes);
  for (const tensor of [...w, x]) tensor?.dispose();
});
