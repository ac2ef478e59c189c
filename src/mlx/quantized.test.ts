/** Products with quantized weights: many rows take another way on the CPU than few, to the same result. */
import { expect, test } from "bun:test";
import * as mx from ".";

const modes = [
  { mode: "affine", bits: 3, groupSize: 32 },
  { mode: "affine", bits: 8, groupSize: 64 },
  { mode: "mxfp4" },
  { mode: "nvfp4" },
] as const;

/** The largest difference of two tensors of one shape. */
function distance(a: mx.Tensor, b: mx.Tensor): number {
  expect(a.shape).toEqual(b.shape);
  return mx.scope(() => a.subtract(b).abs().max().item());
}

function quantized(outputs: number, inputs: number, options: mx.Quantization) {
  const [w, scales, biases = null] = mx.quantize(mx.random.normal({ shape: [outputs, inputs] }), options);
  return (x: mx.Tensor) => mx.quantizedMatmul(x, w, scales, biases, options);
}

for (const options of modes) {
  test(`${Object.values(options).join(" ")}: a batch of rows gives what each row gives alone`, () => {
    mx.scope(() => {
      const product = quantized(96, 128, options);
      const x = mx.random.normal({ shape: [2, 5, 128] });
      const alone = x.reshape(10, 1, 128).split(10, 0).map(product);
      expect(distance(product(x).reshape(10, 1, 96), mx.concatenate(alone))).toBeLessThan(1e-4);
    });
  });
}

test("a weight that is unpacked in slices", () => {
  mx.scope(() => {
    const product = quantized(4100, 2048, { bits: 4 });
    const x = mx.random.normal({ shape: [8, 2048] });
    expect(distance(product(x).at(mx.slice(0, 2)), product(x.at(mx.slice(0, 2))))).toBeLessThan(1e-3);
  });
});

test("the gradient of many rows is that of each", () => {
  mx.scope(() => {
    const product = quantized(32, 64, { bits: 4 });
    const x = mx.random.normal({ shape: [9, 64] });
    const gradient = (x: mx.Tensor) =>
      mx.valueAndGrad((x: mx.Tensor) => product(x).square().sum())(x)[1] as unknown as mx.Tensor;
    expect(distance(gradient(x).at(mx.slice(0, 3)), gradient(x.at(mx.slice(0, 3))))).toBeLessThan(1e-3);
  });
});

test("a wrong shape is an error in either way", () => {
  mx.scope(() => {
    const product = quantized(32, 64, { bits: 4 });
    for (const rows of [1, 9]) expect(() => product(mx.zeros([rows, 128]))).toThrow(/128/);
  });
});
