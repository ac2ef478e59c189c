import { describe, expect, test } from "bun:test";
import { expectValues } from "../../test/parity/fixtures";
import * as mx from "../mlx";
import { expertProducts } from "./expert-products";
import type { Module } from "./module";
import { quantize } from "./quantize";
import { SwitchGLU } from "./switch";
import { SwitchLinear } from "./switch-linear";

const experts = 6;

function chosen(tokens: number, perToken: number): mx.Tensor {
  const ids = Array.from({ length: tokens * perToken }, (_, i) => (i * 5 + (i >> 2)) % experts);
  return mx.array(ids, "uint32", [1, tokens, perToken]);
}

/** Each token by itself, each expert by itself. */
function oneByOne(layer: SwitchGLU, x: mx.Tensor, indices: mx.Tensor): mx.Tensor {
  const results = (indices.toList() as number[][][])[0]!.flatMap((ids, t) =>
    ids.map((expert) => {
      const token = x.at(0, t);
      const times = (part: Module, v: mx.Tensor) => (part as SwitchLinear).weight.at(expert).matmul(v);
      const gate = times(layer.gate_proj, token);
      return times(layer.down_proj, gate.multiply(gate.sigmoid()).multiply(times(layer.up_proj, token)));
    }),
  );
  return mx.stack(results).reshape([...indices.shape, x.dim(-1)]);
}

describe("SwitchGLU", () => {
  for (const [tokens, perToken] of [
    [1, 2],
    [31, 2],
    [40, 3],
  ] as const) {
    test(`${tokens} tokens, ${perToken} experts each: as one by one`, () => {
      const layer = new SwitchGLU(16, 24, experts);
      mx.scope(() => {
        const x = mx.random.normal({ shape: [1, tokens, 16] });
        const indices = chosen(tokens, perToken);
        const result = layer.forward(x, indices);
        expect(result.shape).toEqual([1, tokens, perToken, 16]);
        expectValues(result.toArray(), oneByOne(layer, x, indices).toArray() as Float32Array);
      });
      layer.dispose();
    });
  }

  test("quantized: the same with and without sorting", () => {
    const layer = new SwitchGLU(64, 64, experts, { bias: true });
    quantize(layer);
    mx.scope(() => {
      const x = mx.random.normal({ shape: [1, 40, 64] });
      const indices = chosen(40, 2);
      const few = mx.concatenate(
        x.split(4, 1).map((part, i) => layer.forward(part, indices.split(4, 1)[i]!)),
        { axis: 1 },
      );
      expectValues(layer.forward(x, indices).toArray(), few.toArray() as Float32Array);
    });
    layer.dispose();
  });
});

test("biases are each expert's own", () => {
  const layer = new SwitchLinear(4, 2, 3);
  mx.scope(() => {
    layer.update({
      bias: mx.array(
        [
          [1, 2],
          [3, 4],
          [5, 6],
        ],
        "float32",
      ),
    });
    const result = layer.forward(
      mx.zeros([2, 1, 1, 4]),
      mx.array(
        [
          [2, 0],
          [1, 1],
        ],
        "uint32",
      ),
    );
    expect(result.squeeze(-2).toList()).toEqual([
      [
        [5, 6],
        [1, 2],
      ],
      [
        [3, 4],
        [3, 4],
      ],
    ]);
  });
  layer.dispose();
});

describe("products in half precision", () => {
  for (const uses of [2, 5, 6, 90]) {
    test(`${uses} uses of ${experts} experts: float32 products, rounded`, () => {
      mx.scope(() => {
        const weight = mx.random.normal({ shape: [experts, 8, 16], dtype: "bfloat16" });
        const x = mx.random.normal({ shape: [uses, 1, 16], dtype: "bfloat16" });
        const indices = mx.sort(chosen(uses, 1).flatten());
        const product = expertProducts(x, weight, indices, true);
        const exact = expertProducts(x.astype("float32"), weight.astype("float32"), indices, true);
        expect(product.dtype).toBe("bfloat16");
        expectValues(product.toArray(), exact.astype("bfloat16").toArray() as Float32Array, { tolerance: 1e-2 });
      });
    });
  }
});

test("scales of packed experts in half precision have the gradient of float32", () => {
  const dense = new SwitchLinear(32, 8, experts, { bias: false });
  const slopes = (dtype: "bfloat16" | "float32") => {
    const layer = mx.scope(() => dense.toQuantized({ groupSize: 32, bits: 4 }));
    layer.unfreeze({ keys: ["scales"] });
    mx.scope(() =>
      layer.update({ scales: layer.scales.astype("bfloat16").astype(dtype), biases: layer.biases!.astype(dtype) }),
    );
    const x = mx
      .cos(mx.arange(6 * 32))
      .reshape(6, 1, 1, 32)
      .astype("bfloat16")
      .astype(dtype);
    const loss = (scales: mx.Tensor) => {
      layer.update({ scales });
      return layer.forward(x, chosen(6, 2)).astype("float32").square().sum();
    };
    const gradient = mx.grad(loss)(layer.scales) as mx.Tensor;
    expect(gradient.dtype).toBe(dtype);
    const values = [...(gradient.astype("float32").toArray() as Float32Array)];
    layer.dispose();
    return values;
  };
  mx.scope(() => {
    const [rough, exact] = [slopes("bfloat16"), slopes("float32")];
    const largest = Math.max(...exact.map(Math.abs));
    expect(largest).toBeGreaterThan(0);
    expectValues(
      rough.map((value) => value / largest),
      exact.map((value) => value / largest),
      { tolerance: 3e-2 },
    );
  });
  dense.dispose();
});
