import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { expectValues } from "../../test/parity/fixtures";
import type { Quantization } from "../mlx";
import * as mx from "../mlx";
import { Embedding, QuantizedEmbedding } from "./embedding";
import { Linear, QuantizedLinear } from "./linear";
import { Module } from "./module";
import { RMSNorm } from "./norms";
import { fuseProjections, project } from "./projection";
import { quantize, quantizeActivations, quantizeForCheckpoint } from "./quantize";
import { QuantizedSwitchLinear, SwitchLinear } from "./switch-linear";

class Model extends Module {
  embed = new Embedding(8, 64);
  layers = [new Linear(64, 32), new Linear(64, 32, { bias: false })];
  experts = new SwitchLinear(64, 32, 2, { bias: true });
  norm = new RMSNorm(64);
}

// Whatever draws first makes the state of the random numbers.
mx.eval(mx.random.state.get());

let before: number;
let model: Model;
beforeEach(() => {
  before = mx.liveHandles();
  model = new Model();
});
afterEach(() => {
  model.dispose();
  expect(mx.liveHandles()).toBe(before);
});

const kinds = () => Object.fromEntries(model.namedModules().map(([path, module]) => [path, module.constructor.name]));

describe("quantize", () => {
  test("takes every layer that can be, and keeps what they compute", () => {
    mx.scope(() => {
      const x = mx.random.normal({ shape: [3, 64] });
      const ids = mx.array([1, 5], "uint32");
      const experts = mx.array([[1], [0], [1]], "uint32");
      const results = () => [
        model.embed.forward(ids),
        model.embed.asLinear(x),
        ...model.layers.map((layer) => layer.forward(x)),
        model.experts.forward(x.expandDims([-2, -3]), experts),
      ];
      const exact = results();
      quantize(model, { bits: 8 });
      expect(model.embed).toBeInstanceOf(QuantizedEmbedding);
      expect(model.layers[0]).toBeInstanceOf(QuantizedLinear);
      expect(model.experts).toBeInstanceOf(QuantizedSwitchLinear);
      for (const [i, result] of results().entries()) {
        expect(result.shape).toEqual(exact[i]!.shape);
        expect(result.subtract(exact[i]!).abs().max().item()).toBeLessThan(0.05);
      }
    });
  });

  test("the predicate says which layers, and how", () => {
    const choices: Record<string, boolean | Quantization> = { embed: { mode: "mxfp4" }, "layers.1": true };
    quantize(model, { groupSize: 32, bits: 3, predicate: (path) => choices[path] ?? false });
    expect(kinds()).toEqual({
      "": "Model",
      embed: "QuantizedEmbedding",
      "layers.0": "Linear",
      "layers.1": "QuantizedLinear",
      experts: "SwitchLinear",
      norm: "RMSNorm",
    });
    const packings = model.namedModules().flatMap(([, module]) => ("packing" in module ? [module.packing] : []));
    expect(packings).toEqual([
      { groupSize: 32, bits: 4, mode: "mxfp4" },
      { groupSize: 32, bits: 3, mode: "affine" },
    ]);
  });

  test("a layer that cannot be quantized is an error", () => {
    expect(() => quantize(model, { predicate: (path) => path === "norm" })).toThrow("norm: a RMSNorm cannot be");
  });

  test("a bias taken over is trainable, packed tensors are not", () => {
    quantize(model);
    const trainable = mx.treeFlatten(model.trainableParameters()).map(([path]) => path);
    expect(trainable).toEqual(["layers.0.bias", "experts.bias", "norm.weight"]);
  });
});

describe("quantizeForCheckpoint", () => {
  /** The model's tensors after `quantize`, as a checkpoint would have them. */
  function checkpoint(options: Parameters<typeof quantize>[1]): Map<string, mx.Tensor> {
    const other = new Model();
    quantize(other, options);
    const weights = new Map(other.namedParameters().map(([name, tensor]) => [name, mx.copy(tensor)]));
    other.dispose();
    return weights;
  }

  const modes: Quantization[] = [
    { mode: "affine", groupSize: 32, bits: 3 },
    { mode: "affine", groupSize: 64, bits: 8 },
    { mode: "mxfp4" },
    { mode: "mxfp8" },
    { mode: "nvfp4" },
  ];
  for (const how of modes) {
    test(`${how.mode}, ${how.bits ?? "its own"} bits: told from the shapes`, () => {
      mx.scope(() => {
        const weights = checkpoint({ ...how, predicate: (path) => path !== "norm" && path !== "layers.1" });
        // The common numbers are wrong on purpose: shapes decide.
        quantizeForCheckpoint(model, { group_size: 128, bits: 2 }, weights);
        expect(kinds()["layers.1"]).toBe("Linear");
        model.loadWeights(weights);
        expect(model.namedModules().flatMap(([, module]) => ("packing" in module ? [module.packing] : []))).toEqual(
          Array.from({ length: 3 }, () => expect.objectContaining(how)),
        );
      });
    });
  }

  test("an entry of the configuration decides about its path", () => {
    mx.scope(() => {
      const weights = checkpoint({ groupSize: 32 });
      const config = {
        group_size: 64,
        bits: 4,
        embed: false,
        "layers.0": { group_size: null, bits: 6 },
        "layers.1": true,
      };
      quantizeForCheckpoint(model, config, weights);
      expect(kinds().embed).toBe("Embedding");
      expect((model.layers as unknown as QuantizedLinear[]).map(({ packing }) => packing)).toEqual([
        { groupSize: 64, bits: 6, mode: "affine" },
        { groupSize: 64, bits: 4, mode: "affine" },
      ]);
    });
  });

  test("shapes that no quantization has are an error", () => {
    mx.scope(() => {
      const weights = new Map([
        ["layers.0.weight", mx.zeros([32, 16], "uint32")],
        ["layers.0.scales", mx.zeros([32, 4], "uint8")],
      ]);
      expect(() => quantizeForCheckpoint(model, {}, weights)).toThrow(
        "layers.0: no quantization has one-byte scales, 8 bits and groups of 16",
      );
      weights.delete("layers.0.weight");
      expect(() => quantizeForCheckpoint(model, {}, weights)).toThrow("have layers.0.scales, but not layers.0.weight");
    });
  });
});

describe("quantizeActivations", () => {
  class Heads extends Module {
    q_proj = new Linear(64, 32, { bias: false });
    k_proj = new Linear(64, 32, { bias: false });
    v_proj = new Linear(64, 32, { bias: false });
  }

  test("packs inputs of every quantized layer, alone and where layers were joined", () => {
    const heads = new Heads();
    quantize(heads, { mode: "mxfp8" });
    fuseProjections(heads);
    mx.scope(() => {
      const [one, several] = [1, 3].map((length) => mx.random.normal({ shape: [1, length, 64] })) as [
        mx.Tensor,
        mx.Tensor,
      ];
      const layers = [heads.q_proj, heads.k_proj, heads.v_proj];
      quantizeActivations(heads);
      const packed = mx.dequantize(...(mx.quantize(one, { mode: "mxfp8" }) as [mx.Tensor, mx.Tensor]), null, {
        mode: "mxfp8",
      });
      for (const [i, y] of project(one, layers).entries()) {
        const weight = layers[i]! as unknown as QuantizedLinear;
        const dense = mx.dequantize(weight.weight, weight.scales, null, weight.packing);
        expectValues(y.toArray(), packed.matmul(dense.T).toArray() as Float32Array, { tolerance: 1e-2 });
      }
      // For several rows the CPU has no kernel: that the call gets there is what can be seen.
      if (mx.defaultDevice() === "cpu") expect(() => mx.eval(project(several, layers))).toThrow("QQMatmul");
      else expect(project(several, layers).map(({ shape }) => shape)).toEqual(layers.map(() => [1, 3, 32]));
    });
    heads.dispose();
  });

  test.each<[Quantization, boolean, RegExp]>([
    [{ mode: "affine" }, false, /q_proj is packed in mode affine/],
    [{ mode: "mxfp4" }, false, /mode mxfp4/],
    [{ mode: "mxfp8" }, true, /k_proj has a bias/],
  ])("%p is refused", (how, bias, problem) => {
    const heads = new Heads();
    if (bias) {
      heads.k_proj.dispose();
      heads.k_proj = new Linear(64, 32);
    }
    expect(() => quantizeActivations(heads)).toThrow("no quantized layers");
    quantize(heads, how);
    expect(() => quantizeActivations(heads)).toThrow(problem);
    for (const [, layer] of heads.namedModules()) {
      if (layer instanceof QuantizedLinear) expect(layer.quantizesInputs).toBe(false);
    }
    heads.dispose();
  });
});
