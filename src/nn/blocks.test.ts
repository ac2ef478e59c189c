/** Layers whose weights lie in ggml's blocks stand for plain layers with the same numbers. */
import { afterEach, beforeAll, beforeEach, expect, test } from "bun:test";
import { blocksOf, everyType } from "../../test/parity/gguf-blocks";
import * as mx from "../mlx";
import { BlockEmbedding, BlockLinear, BlockSwitchLinear, isBlockLayer, placeBlocks, takesBlocks } from "./blocks";
import { Embedding } from "./embedding";
import { Linear } from "./linear";
import { Module, parameter } from "./module";
import { MultiLinear } from "./multi-linear";
import { fuseProjections, isJoined, project } from "./projection";
import { SwitchGLU } from "./switch";

const type = everyType.find(({ name }) => name === "Q6_K")!;
const rowBytes = (256 / type.block) * type.bytes;

class Model extends Module {
  q_proj: Linear | BlockLinear = new Linear(256, 12);
  k_proj: Linear | BlockLinear = new Linear(256, 4);
  v_proj: Linear | BlockLinear = new Linear(256, 4);
  embed: Embedding | BlockEmbedding = new Embedding(6, 256);
  experts = new SwitchGLU(256, 256, 3);
}

const paths = ["q_proj", "k_proj", "v_proj", "embed", "experts.gate_proj", "experts.up_proj", "experts.down_proj"];

let before: number;
let plain: Model;
let model: Model;
// The generator's key lives on from the first number that is drawn.
beforeAll(() => mx.random.seed(0));
beforeEach(() => {
  before = mx.liveHandles();
  [plain, model] = [new Model(), new Model()];
  placeBlocks(model, new Map(paths.map((path) => [path, type])), "float32");
  const weights = new Map<string, mx.Tensor>();
  mx.scope(() => {
    for (const [at, [path, layer]] of model.namedModules().entries()) {
      if (!isBlockLayer(layer)) continue;
      const { shape } = layer.weight;
      const count = layer.weight.size / type.bytes;
      const data = blocksOf(type, count + at).subarray(at * type.bytes);
      weights.set(`${path}.weight`, mx.array(data, "uint8", shape).add(0));
    }
    for (const [name, tensor] of plain.namedParameters()) if (name.endsWith("bias")) weights.set(name, tensor.add(0));
    plain.update(
      [...weights].map(([name, tensor]) => [
        name,
        tensor.dtype === "uint8" ? mx.unpackBlocks(tensor, type.code) : tensor.add(0),
      ]),
    );
    model.loadWeights(weights);
  });
});
afterEach(() => {
  plain.dispose();
  model.dispose();
  expect(mx.liveHandles()).toBe(before);
});

function expectSame(made: mx.Tensor, exact: mx.Tensor) {
  expect(made.shape).toEqual(exact.shape);
  expect(made.subtract(exact).abs().max().item()).toBeLessThan(3e-6 * exact.abs().max().item());
}

test("linear layers, embeddings and experts", () => {
  expect(model.namedModules().filter(([, layer]) => isBlockLayer(layer))).toHaveLength(paths.length);
  expect(model.q_proj.weight.shape).toEqual([12, rowBytes]);
  expect((model.q_proj as BlockLinear).inputDims).toBe(256);
  mx.scope(() => {
    const x = mx.array([...Array.from({ length: 512 }, (_, i) => ((i * 29) % 17) - 8)], "float32", [1, 2, 256]);
    expectSame(model.q_proj.forward(x), plain.q_proj.forward(x));
    const ids = mx.array([[5, 0]], "uint32");
    expectSame(model.embed.forward(ids), plain.embed.forward(ids));
    expectSame(model.embed.asLinear(x), plain.embed.asLinear(x));
    const experts = mx.array(
      [
        [
          [0, 2],
          [2, 1],
        ],
      ],
      "uint32",
    );
    const small = x.divide(1000);
    expectSame(model.experts.forward(small, experts), plain.experts.forward(small, experts));
    for (const path of paths) expect(takesBlocks(plain.namedModules().find(([name]) => name === path)![1])).toBe(true);
  });
});

test("projections with one input are one product", () => {
  const layers = [model.q_proj, model.k_proj, model.v_proj];
  mx.scope(() => {
    const x = mx.ones([1, 1, 256]);
    const apart = layers.map((layer) => layer.forward(x));
    mx.eval(apart);
    fuseProjections(model);
    expect(layers.every(isJoined)).toBe(true);
    for (const [i, joint] of project(x, layers).entries()) expectSame(joint, apart[i]!);
    // The layers' own weights are views.
    for (const [i, layer] of layers.entries()) expectSame(layer.forward(x), apart[i]!);
  });
});

test("layers of two types stay apart", () => {
  const other = everyType.find(({ name }) => name === "Q3_K")!;
  const mixed = new Model();
  placeBlocks(
    mixed,
    new Map([
      ["q_proj", type],
      ["k_proj", type],
      ["v_proj", other],
    ] as const),
    "float32",
  );
  fuseProjections(mixed);
  expect(isJoined(mixed.q_proj)).toBe(false);
  mixed.dispose();
});

test("layers that have no form for blocks", () => {
  const heads = new MultiLinear(256, 4, 2);
  expect(takesBlocks(heads)).toBe(false);
  class Holder extends Module {
    heads = heads;
  }
  const holder = new Holder();
  expect(() => placeBlocks(holder, new Map([["heads", type]]), "float32")).toThrow("has no form for blocks");
  holder.dispose();
});

test("each kind of layer unpacks to its numbers", () => {
  mx.scope(() => {
    for (const [path, layer] of model.namedModules()) {
      if (!isBlockLayer(layer)) continue;
      const other = plain.namedModules().find(([name]) => name === path)![1] as Linear;
      expectSame(layer.unpacked("float32"), other.weight);
    }
    expect(model.embed).toBeInstanceOf(BlockEmbedding);
    expect(model.experts.up_proj).toBeInstanceOf(BlockSwitchLinear);
    const bias = parameter(mx.ones([4]));
    const layer = new BlockLinear(256, 4, type, { bias });
    expect(layer.forward(mx.ones([1, 256])).toList()).toEqual([[1, 1, 1, 1]]);
    layer.dispose();
    mx.release(bias);
  });
});
