/** Every quantization mode, width and group size: packing is exact, products agree with Python's. */
import { expect, test } from "bun:test";
import * as mx from "../../src/mlx";
import { type Expected, expectTensor, expectValues, fixture, float32 } from "./fixtures";
import { formula } from "./tensors";

interface Row {
  mode: "affine" | "mxfp4" | "mxfp8" | "nvfp4";
  bits: number;
  groupSize: number;
  packed: number[][];
  scales: Expected;
  biases: Expected | null;
  /** The rest is base64 float32; every eighth column where a row has 128. */
  dequantized: string;
  matmul: string;
  across: string;
  gathered: string;
  gradient: string;
}

const everyEighth = (x: mx.Tensor) => x.at(mx.ellipsis, mx.slice(undefined, undefined, 8)).toArray();

for (const row of fixture<Row[]>("quantize.json")) {
  const { mode, bits, groupSize } = row;
  const options = { mode, bits, groupSize };
  test(`${mode}, ${bits} bits, groups of ${groupSize}`, () => {
    mx.scope(() => {
      const [packed, scales, biases = null] = mx.quantize(formula("w", [4, 128]), options);
      expect(packed!.toList()).toEqual(row.packed);
      expectTensor(scales!, row.scales, { tolerance: 1e-6 });
      expect(biases === null).toBe(row.biases === null);
      if (biases && row.biases) expectTensor(biases, row.biases, { tolerance: 1e-6 });

      const x = formula("x", [2, 1, 128]);
      const product = (x: mx.Tensor) => mx.quantizedMatmul(x, packed!, scales!, biases, options);
      expectValues(everyEighth(mx.dequantize(packed!, scales!, biases, options)), float32(row.dequantized));
      expectValues(product(x).toArray(), float32(row.matmul));
      const across = mx.quantizedMatmul(formula("y", [1, 4]), packed!, scales!, biases, {
        ...options,
        transpose: false,
      });
      expectValues(everyEighth(across), float32(row.across));

      const [experts, expertScales, expertBiases = null] = mx.quantize(formula("experts", [3, 4, 128]), options);
      const gathered = mx.gatherQmm(x, experts!, expertScales!, expertBiases, {
        ...options,
        lhsIndices: mx.array([0, 1, 1], "uint32"),
        rhsIndices: mx.array([2, 0, 2], "uint32"),
      });
      expectValues(gathered.toArray(), float32(row.gathered));

      const [, gradient] = mx.valueAndGrad((x: mx.Tensor) => product(x).square().sum())(x);
      expectValues(everyEighth(gradient as mx.Tensor), float32(row.gradient));
    });
  });
}
