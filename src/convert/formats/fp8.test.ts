import { expect, test } from "bun:test";
import * as mx from "../../mlx";
import { fp8 } from "./fp8";

const { translate } = fp8({ quant_method: "fp8", weight_block_size: null }, "./my-model");
const name = "model.layers.0.mlp.experts.down_proj";
const bytes = (...shape: number[]) =>
  mx
    .arange(shape.reduce((a, b) => a * b))
    .astype("uint8")
    .reshape(shape);
const scales = (...shape: number[]) => mx.full(shape, 0.5).astype("bfloat16");

test("stacked experts have one scale each, and scales of activations go", () => {
  mx.scope(() => {
    const weight = bytes(2, 3, 4);
    const scale = mx.array([0.5, 2], "float32", [2, 1, 1]);
    const unpacked = translate!(
      new Map([
        [name, weight],
        [`${name}_scale_inv`, scale],
        [`${name}_activation_scale`, scales(1)],
        ["model.layers.0.self_attn.o_proj.activation_scale", scales(1)],
      ]),
    );
    expect([...unpacked.keys()]).toEqual([name]);
    const expected = mx.fromFp8(weight, "bfloat16").multiply(scale).astype("bfloat16");
    expect(unpacked.get(name)!.dtype).toBe("bfloat16");
    expect(unpacked.get(name)!.toList()).toEqual(expected.toList());
  });
});

test("stacked experts with scales of another number or form are refused by name", () => {
  mx.scope(() => {
    for (const scale of [scales(3, 1, 1), scales(2, 3, 1), scales(2, 1), scales(2)]) {
      const weights = new Map([
        [name, bytes(2, 3, 4)],
        [`${name}_scale_inv`, scale],
      ]);
      expect(() => translate!(weights)).toThrow(`the tensor ${name} of ./my-model is (2, 3, 4), its scale`);
    }
  });
});
