/** Experts in nvfp4 with a scale for each: the product of the unpacked weights, on whatever device. */
import { expect, test } from "bun:test";
import * as mx from "../mlx";
import { SwitchLinear } from "./switch-linear";

mx.random.seed(3);
mx.eval(mx.random.state.get());

/** Experts of very different sizes: the smallest have scales that nvfp4 alone rounds to nothing, and one is all zeros. */
const sizes = [1e-3, 0.02, 1, 0];

function layers() {
  return mx.scope(() => {
    const dense = new SwitchLinear(64, 32, sizes.length, { bias: true });
    const factors = mx.array(sizes, "float32").expandDims([-1, -2]);
    dense.update({ weight: mx.random.normal({ shape: dense.weight.shape }).multiply(factors) });
    return { dense, packed: dense.toQuantized({ mode: "nvfp4", globalScale: true }) };
  });
}

const largest = (x: mx.Tensor) =>
  x
    .abs()
    .max({ axis: [-2, -1] })
    .toArray() as Float32Array;

test("each expert is packed as well as its largest weight allows", () => {
  const before = mx.liveHandles();
  const { dense, packed } = layers();
  mx.scope(() => {
    const unpacked = packed.toDense();
    const [errors, sizes] = [largest(unpacked.weight.subtract(dense.weight)), largest(dense.weight)];
    // Between the two largest values of a group, 4 and 6, lies a sixth of it.
    for (const [e, error] of errors.entries()) expect(error).toBeLessThanOrEqual(sizes[e]! * 0.19);
    const withoutScales = dense.toQuantized({ mode: "nvfp4" });
    const plain = withoutScales.toDense();
    expect(largest(plain.weight.subtract(dense.weight))[0]!).toBeGreaterThan(sizes[0]! * 0.3);
    for (const layer of [unpacked, withoutScales, plain]) layer.dispose();
  });
  dense.dispose();
  packed.dispose();
  expect(mx.liveHandles()).toBe(before);
});

const experts = [
  [0, 1],
  [2, 3],
  [1, 1],
];

// 64 and more uses come sorted.
for (const repeats of [1, 12]) {
  for (const dtype of ["float32", "bfloat16", "float16"] as const) {
    test(`${repeats * 3} tokens in ${dtype}: rounded once`, () => {
      const before = mx.liveHandles();
      const { dense, packed } = layers();
      mx.scope(() => {
        const indices = mx.array(Array.from({ length: repeats }, () => experts).flat(), "uint32");
        const x = mx.random.normal({ shape: [3 * repeats, 1, 1, 64] }).astype(dtype);
        const out = packed.forward(x, indices).astype("float32");
        const { weight, scales, packing, global_scale } = packed;
        const factors = global_scale!.divide(6 * 448).expandDims([-1, -2]);
        const unpacked = mx.dequantize(weight, scales, null, { ...packing, dtype: "float32" }).multiply(factors);
        const exact = x.astype("float32").matmul(unpacked.take(indices, 0).swapaxes(-1, -2));
        const error = out.subtract(exact).abs().max({ axis: -1 });
        const size = exact.abs().max({ axis: -1 });
        const units = { float32: 1e-5, bfloat16: 2 ** -8, float16: 2 ** -11 };
        // float16 has no finer step than 2 ** -24.
        expect(
          error
            .lessEqual(size.multiply(units[dtype]).add(2 ** -24))
            .all()
            .item(),
        ).toBeTruthy();
        expect(size.max().item()).toBeGreaterThan(1);
      });
      dense.dispose();
      packed.dispose();
      expect(mx.liveHandles()).toBe(before);
    });
  }
}

test("the gradient of the inputs is that of the unpacked weights", () => {
  const { dense, packed } = layers();
  mx.scope(() => {
    const indices = mx.array(experts, "uint32");
    const x = mx.random.normal({ shape: [3, 1, 1, 64] });
    const unpacked = packed.toDense();
    unpacked.update({ weight: unpacked.weight.astype("float32") });
    const slope = (layer: SwitchLinear | typeof packed) =>
      mx.grad((x: mx.Tensor) => layer.forward(x, indices).square().sum())(x) as mx.Tensor;
    const [a, b] = [slope(packed), slope(unpacked)];
    // The unpacked weights are rounded to bfloat16.
    unpacked.dispose();
    expect(a.subtract(b).abs().max().item() as number).toBeLessThan((b.abs().max().item() as number) / 100);
  });
  dense.dispose();
  packed.dispose();
});
