import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { Quantization } from "../mlx";
import * as mx from "../mlx";
import { Embedding, QuantizedEmbedding } from "./embedding";
import { Linear, QuantizedLinear } from "./linear";
import { Module } from "./module";
import { RMSNorm } from "./norms";
import { quantize, quantizeForCheckpoint } from "./quantize";
import { QuantizedSwitchLinear, SwitchLinear } from "./switch";

class Model extends Module {
  embed = new Embedding(8, 64);
  layers = [new Linear(64, 32), new Linear(64, 32, { bias: false })];
  experts = new SwitchLinear(64, 32, 2, { bias: true });
  norm = new RMSNorm(64);
}

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
