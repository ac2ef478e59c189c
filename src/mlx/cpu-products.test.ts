/** Products on the CPU in all their forms: batches, gathered matrices, strided operands, gradients. */
import { describe, expect, test } from "bun:test";
import { bytesInUse, countExactBytes } from "../../test/exact-bytes";
import * as mx from ".";

countExactBytes();

/** MLX's own kernels sum in the operands' dtype: with ours turned off only float32 is near. */
const oursAreOn = process.env.MLXLM_CPU_KERNELS !== "0";
const dtypes = oursAreOn ? (["float32", "bfloat16", "float16"] as const) : (["float32"] as const);
type Floats = "float32" | "bfloat16" | "float16";
const tolerance = { float32: 2e-6, bfloat16: 6e-3, float16: 8e-4 };

const draw = (shape: number[], dtype: Floats) => mx.random.normal({ shape }).astype(dtype);

/** `made` is `exact` (float32), but for its dtype's rounding. */
function expectClose(made: mx.Tensor, exact: mx.Tensor, dtype: Floats, times = 1): void {
  expect(made.shape).toEqual(exact.shape);
  expect(made.dtype).toBe(dtype);
  const off = made.astype("float32").subtract(exact).abs().max().item() / exact.abs().max().item();
  expect(off).toBeLessThan(tolerance[dtype] * times);
}

const options = { bits: 4, groupSize: 64 };

/** Quantized matrices and what they stand for, in float32. */
function quantized(shape: number[], dtype: Floats) {
  const [w, scales, biases] = mx.quantize(draw(shape, dtype), options) as [mx.Tensor, mx.Tensor, mx.Tensor];
  return { parts: [w, scales, biases] as const, dense: denseOf(w, scales, biases) };
}
const denseOf = (w: mx.Tensor, scales: mx.Tensor, biases: mx.Tensor) =>
  mx.dequantize(w, scales.astype("float32"), biases.astype("float32"), { ...options, dtype: "float32" });

const everySecond = mx.slice(undefined, undefined, 2);

for (const dtype of dtypes) {
  describe(dtype, () => {
    test("batches of matrices, broadcast on either side", () => {
      mx.scope(() => {
        for (const [a, b] of [
          [
            [2, 3, 5, 16],
            [2, 3, 16, 9],
          ],
          [
            [2, 1, 5, 16],
            [3, 16, 9],
          ],
          [
            [4, 1, 16],
            [16, 33],
          ],
          [
            [7, 16],
            [2, 16, 9],
          ],
        ] as const) {
          const [x, w] = [draw([...a], dtype), draw([...b], dtype)];
          expectClose(x.matmul(w), x.astype("float32").matmul(w.astype("float32")), dtype);
        }
      });
    });

    test("strided operands", () => {
      mx.scope(() => {
        const [x, w] = [draw([3, 40, 64], dtype), draw([50, 2, 64], dtype)];
        const [wideX, wideW] = [x.astype("float32"), w.astype("float32")];
        const pairs = [
          [(t: mx.Tensor) => t.swapaxes(1, 2).at(":", mx.slice(3, 43)), (t: mx.Tensor) => t.at(mx.slice(0, 40), 1)],
          [(t: mx.Tensor) => t.at(":", everySecond), (t: mx.Tensor) => t.at(everySecond, 0).T],
          [(t: mx.Tensor) => t.at(1, ":", everySecond), (t: mx.Tensor) => t.at(mx.slice(0, 32), 1, everySecond)],
          [
            (t: mx.Tensor) => t.at(1).T.at(everySecond),
            (t: mx.Tensor) => t.at(mx.slice(5, 45), 0).at(":", everySecond),
          ],
        ] as const;
        for (const [ofX, ofW] of pairs) expectClose(ofX(x).matmul(ofW(w)), ofX(wideX).matmul(ofW(wideW)), dtype);

        const { parts, dense } = quantized([66, 128], dtype);
        const long = draw([128, 9], dtype).T;
        const rows = parts.map((part) => part.at(everySecond)) as unknown as typeof parts;
        const exact = long.astype("float32").matmul(dense.at(everySecond).T);
        expectClose(mx.quantizedMatmul(long, ...rows, options), exact, dtype);
        expectClose(mx.quantizedMatmul(long.at(mx.slice(2, 4)), ...rows, options), exact.at(mx.slice(2, 4)), dtype);
      });
    });

    test("batches of quantized matrices", () => {
      mx.scope(() => {
        const { parts, dense } = quantized([3, 20, 64], dtype);
        const x = draw([2, 3, 5, 64], dtype);
        expectClose(
          mx.quantizedMatmul(x, ...parts, options),
          x.astype("float32").matmul(dense.swapaxes(-1, -2)),
          dtype,
        );
      });
    });

    test("gathered matrices, plain and quantized, either side by index", () => {
      mx.scope(() => {
        const { parts, dense } = quantized([6, 64, 128], dtype);
        const w = draw([6, 64, 128], dtype);
        for (const [tokens, chosen] of [
          [1, 2],
          [9, 3],
          [40, 4],
        ] as const) {
          const x = draw([tokens, 1, 1, 128], dtype);
          const rhsIndices = mx.random.randint(0, 6, { shape: [tokens, chosen] }).astype("uint32");
          const exact = (dense: mx.Tensor) =>
            x.astype("float32").matmul(dense.astype("float32").take(rhsIndices, 0).swapaxes(-1, -2));
          expectClose(mx.gatherQmm(x, ...parts, { ...options, rhsIndices }), exact(dense), dtype);
          expectClose(mx.gatherMm(x, w.swapaxes(-1, -2), { rhsIndices }), exact(w), dtype);

          const narrow = draw([tokens, 1, 3, 64], dtype);
          const onto = narrow.astype("float32").matmul(dense.take(rhsIndices, 0));
          expectClose(mx.gatherQmm(narrow, ...parts, { ...options, rhsIndices, transpose: false }), onto, dtype);

          const lhsIndices = mx.random.randint(0, tokens, { shape: [5] }).astype("uint32");
          const some = mx.random.randint(0, 6, { shape: [5] }).astype("uint32");
          const met = x.astype("float32").squeeze(1).take(lhsIndices, 0);
          expectClose(
            mx.gatherQmm(x.squeeze(1), ...parts, { ...options, lhsIndices, rhsIndices: some }),
            met.matmul(dense.take(some, 0).swapaxes(-1, -2)),
            dtype,
          );
        }
      });
    });

    test("gradients", () => {
      mx.scope(() => {
        const gradients = (product: (...args: mx.Tensor[]) => mx.Tensor, args: mx.Tensor[], cotangent: mx.Tensor) =>
          mx.vjp(product, args, [cotangent])[1];
        const wide = (tensors: mx.Tensor[]) => tensors.map((tensor) => tensor.astype("float32"));
        const check = (
          ours: (...args: mx.Tensor[]) => mx.Tensor,
          exact: (...args: mx.Tensor[]) => mx.Tensor,
          args: mx.Tensor[],
          shape: number[],
        ) => {
          const cotangent = draw(shape, dtype);
          const made = gradients(ours, args, cotangent);
          const expected = gradients(exact, wide(args), cotangent.astype("float32"));
          for (const [i, gradient] of made.entries()) expectClose(gradient, expected[i]!, dtype, 4);
        };
        const multiply = (a: mx.Tensor, b: mx.Tensor) => a.matmul(b);
        check(multiply, multiply, [draw([2, 7, 16], dtype), draw([16, 9], dtype)], [2, 7, 9]);
        check(multiply, multiply, [draw([2, 1, 7, 16], dtype), draw([3, 16, 9], dtype)], [2, 3, 7, 9]);

        const { parts, dense } = quantized([32, 64], dtype);
        check(
          (x) => mx.quantizedMatmul(x, ...parts, options),
          (x) => x.matmul(dense.T),
          [draw([2, 9, 64], dtype)],
          [2, 9, 32],
        );
        const experts = quantized([4, 32, 64], dtype);
        const plain = draw([4, 64, 32], dtype);
        const rhsIndices = mx.array(
          [
            [1, 3],
            [0, 1],
            [2, 2],
          ],
          "uint32",
        );
        const taken = (w: mx.Tensor) => w.astype("float32").take(rhsIndices, 0);
        check(
          (x) => mx.gatherQmm(x, ...experts.parts, { ...options, rhsIndices }),
          (x) => x.matmul(taken(experts.dense).swapaxes(-1, -2)),
          [draw([3, 1, 2, 64], dtype)],
          [3, 2, 2, 32],
        );
        check(
          (x) => mx.gatherMm(x, plain, { rhsIndices }),
          (x) => x.matmul(taken(plain)),
          [draw([3, 1, 2, 64], dtype)],
          [3, 2, 2, 32],
        );
      });
    });
  });
}

test("scales and biases have the gradients that MLX gives them", () => {
  mx.scope(() => {
    const { parts } = quantized([32, 64], "float32");
    const x = draw([5, 64], "float32");
    const loss = (product: (scales: mx.Tensor, biases: mx.Tensor) => mx.Tensor) =>
      mx.vjp(product, [parts[1], parts[2]], [mx.ones([5, 32])])[1];
    const made = loss((scales, biases) => mx.quantizedMatmul(x, parts[0], scales, biases, options));
    const expected = loss((scales, biases) => x.matmul(mx.dequantize(parts[0], scales, biases, options).T));
    for (const [i, gradient] of made.entries()) expectClose(gradient, expected[i]!, "float32", 4);
  });
});

test("a forward derivative and a map over a batch", () => {
  mx.scope(() => {
    const [a, b] = [draw([5, 16], "bfloat16"), draw([16, 9], "bfloat16")];
    const direction = draw([5, 16], "bfloat16");
    const [, [derivative]] = mx.jvp((x: mx.Tensor) => x.matmul(b), [a], [direction]);
    expectClose(derivative!, direction.astype("float32").matmul(b.astype("float32")), "bfloat16");
    const many = draw([3, 5, 16], "bfloat16");
    const [mapped] = mx.vmap((x: mx.Tensor) => x.matmul(b))(many);
    expectClose(mapped!, many.astype("float32").matmul(b.astype("float32")), "bfloat16");
  });
});

test("an index that is not there is an error", () => {
  mx.scope(() => {
    const { parts } = quantized([2, 32, 64], "float32");
    const rhsIndices = mx.array([0, 2], "uint32");
    const product = mx.gatherQmm(mx.ones([2, 1, 64]), ...parts, { ...options, rhsIndices });
    if (oursAreOn) expect(() => mx.eval(product)).toThrow("index 2 of 2 gathered matrices");
  });
});

test("nothing is kept", () => {
  const once = () =>
    mx.scope(() => {
      const { parts } = quantized([32, 64], "bfloat16");
      const x = draw([5, 64], "bfloat16");
      mx.eval(
        mx.vjp((x: mx.Tensor) => mx.quantizedMatmul(x, ...parts, options), [x], [mx.ones([5, 32], "bfloat16")])[1],
      );
    });
  once();
  const [handles, memory] = [mx.liveHandles(), bytesInUse()];
  for (let i = 0; i < 50; i++) once();
  expect([mx.liveHandles(), bytesInUse()]).toEqual([handles, memory]);
});
