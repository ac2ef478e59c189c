import { afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { expectValues } from "../../test/parity/fixtures";
import * as mx from "../mlx";
import { projectHeads, splitHeads } from "./attention";
import { Linear } from "./linear";
import { GatedMLP } from "./mlp";
import { Module, parameter } from "./module";
import { fuseProjections, project, projectJointly } from "./projection";
import { quantize } from "./quantize";
import { RoPE } from "./rope";

class Attention extends Module {
  q_proj = new Linear(64, 64);
  k_proj = new Linear(64, 32);
  v_proj = new Linear(64, 32);
}

class Model extends Module {
  layers = [{ attention: new Attention(), mlp: new GatedMLP(64, 128) }].flatMap(({ attention, mlp }) => [
    attention,
    mlp,
  ]);
}

let before: number;
let model: Model;
let attention: Attention;
let x: mx.Tensor;
// The generator's key lives on from the first number that is drawn.
beforeAll(() => mx.random.seed(0));
beforeEach(() => {
  before = mx.liveHandles();
  model = new Model();
  attention = model.layers[0] as Attention;
  x = parameter(mx.scope(() => mx.random.normal({ shape: [2, 1, 64] })));
});
afterEach(() => {
  mx.release(x);
  model.dispose();
  expect(mx.liveHandles()).toBe(before);
});

const layers = () => [attention.q_proj, attention.k_proj, attention.v_proj] as const;
const results = () => mx.scope(() => project(x, layers()).map((result) => result.toArray() as Float32Array));
const isJoint = () => mx.scope(() => projectJointly(x, layers()) !== null);

function expectSame(actual: Float32Array[], expected: Float32Array[]) {
  expect(actual.length).toBe(expected.length);
  for (const [i, values] of actual.entries()) expectValues(values, expected[i]!);
}

for (const kind of ["plain", "4-bit", "mxfp8"] as const) {
  test(`${kind} layers give the same together, under the same names, in the same memory`, () => {
    if (kind === "4-bit") quantize(model);
    if (kind === "mxfp8") quantize(model, { mode: "mxfp8" });
    mx.eval(model.parameters());
    const apart = results();
    const facts = () => model.namedParameters().map(([name, { shape, dtype }]) => [name, shape, dtype]);
    const values = () => model.namedParameters().map(([, tensor]) => tensor.toList());
    const [names, numbers] = [facts(), values()];
    const size = mx.bufferSize(model.parameters());

    expect(isJoint()).toBe(false);
    fuseProjections(model);
    expect(isJoint()).toBe(true);
    expectSame(results(), apart);
    expect(facts()).toEqual(names);
    expect(values()).toEqual(numbers);
    // Buffers may be rounded up to whole pages, one by one.
    expect(mx.bufferSize(model.parameters())).toBeLessThan(size + 16 * 1024);
  });
}

test.skipIf(mx.isAvailable("cuda"))("several tokens at a time go separately", () => {
  fuseProjections(model);
  mx.scope(() => expect(projectJointly(mx.zeros([1, 2, 64]), layers())).toBeNull());
});

test("fusing again changes nothing", () => {
  const apart = results();
  fuseProjections(model);
  fuseProjections(model);
  expect(isJoint()).toBe(true);
  expectSame(results(), apart);
});

test("heads are rotated together as they are apart", () => {
  const layout = { heads: 4, kvHeads: 2, rope: new RoPE(16) };
  const heads = () =>
    mx.scope(() =>
      projectHeads(x, layers(), layout, 5).map((part) => ({
        shape: part.shape,
        values: part.toArray() as Float32Array,
      })),
    );
  const apart = heads();
  fuseProjections(model);
  const joint = heads();
  expect(joint.map(({ shape }) => shape)).toEqual([
    [2, 4, 1, 16],
    [2, 2, 1, 16],
    [2, 2, 1, 16],
  ]);
  expectSame(
    joint.map(({ values }) => values),
    apart.map(({ values }) => values),
  );
});

test("one token's heads need no transposition", () => {
  mx.scope(() => {
    const one = mx.arange(24).reshape(1, 1, 24);
    expect(splitHeads(one, 3).toList()).toEqual(one.reshape(1, 1, 3, 8).transpose(0, 2, 1, 3).toList());
  });
});

describe("the layers go their own ways again", () => {
  test("where one was replaced", () => {
    fuseProjections(model);
    const former = attention.replace("k_proj", new Linear(64, 32));
    expect(isJoint()).toBe(false);
    attention.replace("k_proj", former).dispose();
    expect(isJoint()).toBe(true);
  });

  test("where one has new weights, and the joint copy is freed", () => {
    fuseProjections(model);
    const live = mx.liveHandles();
    mx.scope(() => attention.v_proj.update({ weight: mx.zeros([32, 64]), bias: mx.ones([32]) }));
    expect(results()[2]!.every((value) => value === 1)).toBe(true);
    expect(mx.liveHandles()).toBe(live - 2);
  });

  test("in gradients, which reach each layer's own weight", () => {
    const loss = (weights: mx.Tree) => {
      const own = attention.parameters();
      attention.update(weights);
      const value = mx.stack(project(x, layers()).map((result) => result.square().sum())).sum();
      attention.update(own);
      return value;
    };
    const gradients = () =>
      mx.scope(() => {
        const gradient = mx.grad(loss)(attention.trainableParameters());
        return mx.treeFlatten(gradient).map(([, g]) => g.toArray() as Float32Array);
      });
    const apart = gradients();
    fuseProjections(model);
    expectSame(gradients(), apart);
    expect(apart.every((gradient) => gradient.some((value) => value !== 0))).toBe(true);
  });
});

describe("layers that differ stay apart", () => {
  const cases: [string, () => void][] = [
    ["in dtype", () => attention.k_proj.update({ weight: mx.zeros([32, 64], "float16") })],
    ["in having a bias", () => attention.replace("k_proj", new Linear(64, 32, { bias: false })).dispose()],
    ["in quantization", () => quantize(model, { predicate: (path) => path === "layers.0.k_proj" })],
  ];
  for (const [name, change] of cases) {
    test(name, () => {
      mx.scope(change);
      fuseProjections(model);
      expect(isJoint()).toBe(false);
    });
  }
});
