import { beforeEach, describe, expect, test } from "bun:test";
import { UserError } from "../errors";
import * as mx from "../mlx";
import { Linear } from "./linear";
import { Module, parameter } from "./module";
import { RMSNorm } from "./norms";

class Branch extends Module {
  A_log: mx.Tensor;
  parts: (Linear | null)[];
  _hidden: mx.Tensor;
  readonly width = 2;

  constructor() {
    super();
    this.A_log = parameter(mx.zeros([3]));
    this.parts = [new Linear(2, 3), null, new Linear(3, 1, { bias: false })];
    this._hidden = parameter(mx.ones([1]));
  }
}

class Root extends Module {
  branch = new Branch();
  norm = new RMSNorm(2);
  absent?: Linear;
}

const names = ["branch.A_log", "branch.parts.0.weight", "branch.parts.0.bias", "branch.parts.2.weight", "norm.weight"];

let root: Root;
beforeEach(() => {
  root = new Root();
});

const zerosLikeAll = () => new Map(root.namedParameters().map(([name, { shape }]) => [name, mx.zeros(shape)]));

describe("the tree", () => {
  test("parameters are named by the path of fields; hidden ones and other values are none", () => {
    expect(root.namedParameters().map(([name]) => name)).toEqual(names);
    expect(mx.treeFlatten(root.parameters()).map(([name]) => name)).toEqual(names);
  });

  test("modules come with their paths, parents first", () => {
    expect(root.namedModules().map(([path]) => path)).toEqual([
      "",
      "branch",
      "branch.parts.0",
      "branch.parts.2",
      "norm",
    ]);
    expect(root.branch.children().map(([path]) => path)).toEqual(["parts.0", "parts.2"]);
  });

  test("dispose frees everything, hidden tensors too", () => {
    const before = mx.liveHandles();
    mx.scope(() => new Root()).dispose();
    expect(mx.liveHandles()).toBe(before);
  });

  test("building outside any scope leaves nothing but parameters", () => {
    const before = mx.liveHandles();
    new Root().dispose();
    expect(mx.liveHandles()).toBe(before);
  });
});

describe("update", () => {
  test("takes entries or a tree, keeps the new tensors and frees the old", () => {
    const before = mx.liveHandles();
    mx.scope(() => root.update([["branch.parts.2.weight", mx.array([[1, 2, 3]], "float32")]]));
    mx.scope(() => root.update({ branch: { A_log: mx.array([4, 5, 6], "float32") } }));
    expect(root.branch.parts[2]!.weight.toList()).toEqual([[1, 2, 3]]);
    expect(root.branch.A_log.toList()).toEqual([4, 5, 6]);
    expect(mx.liveHandles()).toBe(before);
  });

  test("putting a tensor where it already is changes nothing", () => {
    root.update([["norm.weight", root.norm.weight]]);
    expect(root.norm.weight.toList()).toEqual([1, 1]);
  });

  test("refuses a path that is no parameter", () => {
    const one = mx.ones([1]);
    for (const path of ["branch.parts.1.weight", "branch.width", "nowhere.weight", "norm"]) {
      expect(() => root.update([[path, one]])).toThrow(`Root has no parameter ${path}`);
    }
  });
});

describe("loadWeights", () => {
  const load = (change: (weights: Map<string, mx.Tensor>) => void, strict = true) => {
    const weights = zerosLikeAll();
    change(weights);
    return () => root.loadWeights(weights, { strict });
  };

  test("takes the checkpoint's tensors, whatever their dtype", () => {
    load((weights) => weights.set("norm.weight", mx.array([7, 8], "bfloat16")))();
    expect(root.norm.weight.dtype).toBe("bfloat16");
    expect(root.norm.weight.toList()).toEqual([7, 8]);
  });

  test("says what is missing, unknown or of the wrong shape, and changes nothing", () => {
    const broken = load((weights) => {
      weights.delete("norm.weight");
      for (const name of ["a", "b", "c", "d"]) weights.set(name, mx.ones([1]));
      weights.set("branch.A_log", mx.ones([3, 1]));
    });
    expect(broken).toThrow(UserError);
    expect(broken).toThrow(
      "the weights do not fit the model: 1 tensor has a wrong shape: branch.A_log is (3, 1), expected (3); " +
        "1 tensor is missing: norm.weight; 4 tensors are unknown: a, b, c and 1 more",
    );
    expect(root.norm.weight.toList()).toEqual([1, 1]);
  });

  test("loads what there is unless strict, but no wrong shape", () => {
    const partial = load((weights) => {
      weights.delete("norm.weight");
      weights.set("extra", mx.ones([1]));
    }, false);
    expect(partial).not.toThrow();
    expect(load((weights) => weights.set("norm.weight", mx.ones([3])), false)).toThrow("1 tensor has a wrong shape");
  });
});

test("replace swaps a module, in a list too, and hands back the old one", () => {
  const next = new Linear(3, 1);
  const old = root.branch.parts[2]!;
  expect(root.replace("branch.parts.2", next)).toBe(old);
  expect(root.branch.parts[2]).toBe(next);
  expect(() => root.replace("branch.A_log", next)).toThrow("Root has no module branch.A_log");
});

test("frozen parameters are not trainable", () => {
  const trainable = () => mx.treeFlatten(root.trainableParameters()).map(([name]) => name);
  root.branch.freeze();
  expect(trainable()).toEqual(["norm.weight"]);
  root.freeze().unfreeze({ keys: ["bias"] });
  expect(trainable()).toEqual(["branch.parts.0.bias"]);
  root.unfreeze();
  expect(trainable()).toEqual(names);
  root.freeze({ keys: ["weight"] });
  expect(trainable()).toEqual(["branch.A_log", "branch.parts.0.bias"]);
});

test("gradients by trainable parameters", () => {
  const layer = new Linear(2, 1);
  layer.update({ weight: mx.array([[2, 3]], "float32"), bias: mx.array([0], "float32") });
  layer.freeze({ keys: ["bias"] });
  const x = mx.array([[5, 7]], "float32");
  const weights = layer.parameters();
  const loss = (trained: mx.Tree) => {
    const result = layer.update(trained).forward(x).square().sum();
    layer.update(weights);
    return result;
  };
  const [value, gradient] = mx.valueAndGrad(loss)(layer.trainableParameters());
  expect(value.item()).toBe(31 ** 2);
  expect(mx.treeFlatten(gradient).map(([name, g]) => [name, g.toList()])).toEqual([
    ["weight", [[2 * 31 * 5, 2 * 31 * 7]]],
  ]);
  expect(layer.weight.toList()).toEqual([[2, 3]]);
});
