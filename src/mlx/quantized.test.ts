/** Quantized weights, and products with them: many rows take another way on the CPU than few, to the same result. */
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

test.each([
  ["transposed", (x: mx.Tensor) => x.T],
  ["a transposed slice", (x: mx.Tensor) => x.at(mx.slice(64, 128)).T],
  ["transposed experts", (x: mx.Tensor) => x.reshape(2, 64, 96).swapaxes(-1, -2)],
])("quantize takes weights as they read, not as they lie in memory: %s", (_, view) => {
  const before = mx.liveHandles();
  mx.scope(() => {
    const w = view(mx.random.normal({ shape: [128, 96], key: mx.random.key(5) }));
    const copied = mx.array(w.toList() as number[][], "float32");
    const packed = mx.quantize(w, { groupSize: 32, bits: 4 });
    const expected = mx.quantize(copied, { groupSize: 32, bits: 4 });
    for (const [i, part] of packed.entries()) expect(part!.toList()).toEqual(expected[i]!.toList());
  });
  expect(mx.liveHandles()).toBe(before);
});

test("what quantize made outside of all scopes is its parts alone", () => {
  const w = mx.random.normal({ shape: [4, 64] });
  const before = mx.liveHandles();
  const parts = mx.quantize(w);
  expect(mx.liveHandles()).toBe(before + 3);
  for (const part of [...parts, w]) part!.dispose();
});

test("a group size or bits of zero is an error, not the end of the process", () => {
  mx.scope(() => {
    const w = mx.ones([4, 64]);
    const [packed, scales, biases] = mx.quantize(w, { groupSize: 32, bits: 4 });
    for (const how of [{ groupSize: 0 }, { groupSize: Number.POSITIVE_INFINITY }, { bits: 0 }, { bits: 0.5 }]) {
      expect(() => mx.quantize(w, how)).toThrow(mx.MlxError);
      expect(() => mx.dequantize(packed, scales, biases, how)).toThrow(/must be a positive integer/);
    }
  });
});
