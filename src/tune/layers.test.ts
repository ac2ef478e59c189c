/** Adapter layers against mlx-lm's: results, gradients, and the weights that they become. */
import { expect, test } from "bun:test";
import { expectValues, fixture, float32 } from "../../test/parity/fixtures";
import { formula } from "../../test/parity/tensors";
import type { Dtype, Quantization, Tensor } from "../mlx";
import * as mx from "../mlx";
import { Embedding, Linear, type Module, type Quantizable, SwitchLinear } from "../nn";
import { DoraEmbedding, DoraLinear } from "./dora";
import { trainableParameters } from "./linear-to-lora";
import { LoraEmbedding } from "./lora-embedding";
import { LoraLinear, LoraSwitchLinear } from "./lora-linear";
import { type Adapter, denseWeight } from "./low-rank";

interface Expected {
  dtype: string;
  shape: number[];
  float32: string;
}

interface Row {
  base: "linear" | "biased" | "embedding" | "switch" | "biased_switch";
  kind: "lora" | "dora";
  packing: "plain" | "affine4" | "affine6" | "mxfp4";
  results: Record<string, Expected>;
  loss: number;
  gradients: Record<string, Expected>;
  fused: Expected;
  fused_bits: number | null;
  dequantized: Expected;
}

const rows = fixture<Row[]>("tune-layers.json");

const [input, output, experts, count] = [32, 12, 3, 10];
const options = { rank: 4, scale: 3, dropout: 0 };

const packings: Record<Row["packing"], Quantization | null> = {
  plain: null,
  affine4: { groupSize: 32, bits: 4 },
  affine6: { groupSize: 32, bits: 6 },
  mxfp4: { groupSize: 32, bits: 4, mode: "mxfp4" },
};

const bases: Record<Row["base"], () => Quantizable> = {
  linear: () => new Linear(input, output, { bias: false }),
  biased: () => new Linear(input, output),
  embedding: () => new Embedding(count, input),
  switch: () => new SwitchLinear(input, output, experts, { bias: false }),
  biased_switch: () => new SwitchLinear(input, output, experts),
};

/** The row's base layer, by formula. */
function baseOf({ base, packing }: Row): Module {
  const layer = bases[base]();
  layer.update(layer.namedParameters().map(([name, x]) => [name, formula(`base.${name}`, x.shape)]));
  const how = packings[packing];
  if (!how) return layer;
  const packed = layer.toQuantized(how);
  layer.dispose();
  return packed;
}

function adapterOf(row: Row): Adapter {
  const base = baseOf(row).freeze();
  const dora = row.kind === "dora";
  if (row.base === "embedding")
    return dora ? new DoraEmbedding(base as Embedding, options) : new LoraEmbedding(base as Embedding, options);
  if (row.base.endsWith("switch")) return new LoraSwitchLinear(base as SwitchLinear, options);
  return dora ? new DoraLinear(base as Linear, options) : new LoraLinear(base as Linear, options);
}

function results(layer: Adapter): Record<string, Tensor> {
  if (layer instanceof LoraEmbedding || layer instanceof DoraEmbedding) {
    const ids = mx.array([[3, 9, 0], [7, 3, 5]], "int32"); // biome-ignore format: rows
    return { forward: layer.forward(ids), as_linear: layer.asLinear(formula("x", [2, 3, input])) };
  }
  if (layer instanceof LoraSwitchLinear) {
    const indices = mx.array([[1, 2], [0, 1], [2, 2]], "uint32"); // biome-ignore format: rows
    return { forward: layer.forward(formula("x", [3, 1, 1, input]), indices) };
  }
  return { forward: (layer as LoraLinear | DoraLinear).forward(formula("x", [2, 3, input])) };
}

function close(actual: Tensor, expected: Expected, tolerance = 2e-5): void {
  expect({ dtype: actual.dtype, shape: [...actual.shape] } as object).toEqual({
    dtype: expected.dtype,
    shape: expected.shape,
  });
  const numbers = actual.astype("float32").toArray();
  expectValues(numbers, float32(expected.float32), { tolerance });
}

/** Packed weights: where a number lies between two steps, the last bit of a product decides. */
function nearlyAll(actual: Tensor, expected: Expected, share: number): void {
  const wanted = float32(expected.float32);
  const others = [...actual.toArray()].filter((x, i) => Math.abs(Number(x) - wanted[i]!) > 1e-4);
  expect(actual.size).toBe(wanted.length);
  expect(others.length).toBeLessThanOrEqual(wanted.length * share);
}

for (const row of rows) {
  test(`${row.kind} of ${row.packing} ${row.base}: results, gradients and fused weights are mlx-lm's`, () => {
    mx.eval(mx.random.state.get());
    const before = mx.liveHandles();
    mx.scope(() => {
      const layer = adapterOf(row);
      const own = trainableParameters(layer).map(([name, x]): [string, Tensor] => [
        name,
        name === "m" ? x.multiply(1.25) : formula(name, x.shape),
      ]);
      expect(own.map(([name]) => name).sort()).toEqual(Object.keys(row.gradients));
      layer.update(own);
      const found = results(layer);
      expect(Object.keys(found)).toEqual(Object.keys(row.results));
      for (const [name, expected] of Object.entries(row.results)) close(found[name]!, expected);

      const names = own.map(([name]) => name);
      const loss = (parameters: Tensor[]) => {
        layer.update(names.map((name, i) => [name, parameters[i]!]));
        const value = Object.values(results(layer))
          .map((x) => x.square().mean())
          .reduce((a, b) => a.add(b));
        layer.update(own);
        return value;
      };
      const [value, gradients] = mx.valueAndGrad(loss)(own.map(([, x]) => x)) as [Tensor, Tensor[]];
      expectValues([value.item()], [row.loss], { tolerance: 1e-5 });
      names.forEach((name, i) => {
        close(gradients[i]!, row.gradients[name]!, 1e-4);
      });

      const fused = layer.fuse();
      expect("packing" in fused ? (fused.packing as { bits: number }).bits : null).toBe(row.fused_bits);
      // The base's dtype is kept, bfloat16 for mxfp4, where mlx-lm's DoRA widens to float32.
      const rounded = row.kind === "dora" && row.packing === "mxfp4";
      if (row.fused_bits === null) close(denseWeight(fused as never), row.fused);
      else nearlyAll(denseWeight(fused as never), row.fused, rounded ? 0.03 : 0.01);
      const dense = layer.fuse({ dequantize: true }) as Linear;
      expect(dense.weight.dtype).toBe(rounded ? "bfloat16" : (row.dequantized.dtype as Dtype));
      close(dense.weight.astype("float32"), { ...row.dequantized, dtype: "float32" }, rounded ? 4e-3 : 2e-5);
      for (const module of [fused, dense, layer]) module.dispose();
    });
    expect(mx.liveHandles()).toBe(before);
  });
}

test("a fused layer computes what its adapter computes", () => {
  mx.scope(() => {
    for (const row of rows.filter(({ packing, base }) => packing === "plain" && base !== "embedding")) {
      const layer = adapterOf(row);
      layer.update(trainableParameters(layer).map(([name, x]) => [name, formula(name, x.shape, 0.5, 1)]));
      const fused = layer.fuse() as Linear & SwitchLinear;
      const indices = mx.array([[1, 2]], "uint32");
      const x = formula("x", [1, 1, 1, input]);
      const y = row.base.endsWith("switch")
        ? [fused.forward(x, indices), (layer as LoraSwitchLinear).forward(x, indices)]
        : [fused.forward(x), (layer as LoraLinear).forward(x)];
      expectValues(y[1]!.toArray(), y[0]!.toArray() as Float32Array, { tolerance: 1e-4 });
      fused.dispose();
      layer.dispose();
    }
  });
});

test("experts in nvfp4 keep scales of their own where an adapter is fused into them", () => {
  const before = mx.liveHandles();
  mx.scope(() => {
    const dense = new SwitchLinear(64, 32, 2, { bias: false });
    // Numbers as small as an expert's, which nvfp4 alone rounds to nothing.
    dense.update({ weight: formula("experts", [2, 32, 64]).multiply(1e-3) });
    const base = dense.toQuantized({ mode: "nvfp4", globalScale: true });
    const adapted = new LoraSwitchLinear(base, { rank: 4, scale: 1, dropout: 0 });
    adapted.update({ lora_b: formula("b", [2, 32, 4]).multiply(1e-3) });
    const fused = adapted.fuse() as typeof base;
    expect(fused.packing.mode).toBe("nvfp4");
    const change = adapted.lora_b.matmul(adapted.lora_a);
    const [plain, result] = [base.toDense(), fused.toDense()];
    const wanted = plain.weight.add(change);
    const error = result.weight.subtract(wanted).abs().max().item() as number;
    expect(error).toBeLessThan((wanted.abs().max().item() as number) * 0.19);
    for (const layer of [dense, adapted, fused, plain, result]) layer.dispose();
  });
  expect(mx.liveHandles()).toBe(before);
});
