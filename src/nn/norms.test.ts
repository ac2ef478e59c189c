import { expect, test } from "bun:test";
import { expectValues } from "../../test/parity/fixtures";
import * as mx from "../mlx";
import { holdGains, LayerNorm, OffsetRMSNorm, RMSNorm, ZeroCenteredRMSNorm } from "./norms";

const x = () => mx.array([1, 2, 3, 4], "float32");
const rms = [0.36514813, 0.73029625, 1.0954444, 1.4605925];

test("RMSNorm: Python's values, times the weight", () => {
  const norm = new RMSNorm(4);
  mx.scope(() => {
    expectValues(norm.forward(x()).toArray(), rms, { tolerance: 1e-6 });
    norm.update({ weight: mx.array([1, 0, -1, 2], "float32") });
    expectValues(norm.forward(x()).toArray(), [rms[0]!, 0, -rms[2]!, 2 * rms[3]!], { tolerance: 1e-6 });
  });
  norm.dispose();
});

test("a zero-centered weight counts from one", () => {
  const norm = new ZeroCenteredRMSNorm(4);
  mx.scope(() => {
    norm.update({ weight: mx.array([0, -1, -2, 1], "float32") });
    expectValues(norm.forward(x()).toArray(), [rms[0]!, 0, -rms[2]!, 2 * rms[3]!], { tolerance: 1e-6 });
  });
  norm.dispose();
});

test("a gain that is held is the same, and goes when the weight is another or is traced", () => {
  const live = mx.liveHandles();
  const norm = new OffsetRMSNorm(4, 1e-5, 0.5);
  const values = () => mx.scope(() => norm.forward(x()).toList());
  const weigh = (...weight: number[]) => mx.scope(() => norm.update({ weight: mx.array(weight, "float32") }));
  weigh(1, 2, 3, 4);
  const before = values();
  holdGains(norm);
  expect(norm.gain).toBe(norm.gain);
  expect(values()).toEqual(before);
  expect(norm.namedParameters().map(([name]) => name)).toEqual(["weight"]);

  weigh(4, 3, 2, 1);
  const gain = () => mx.scope(() => norm.gain.toList());
  for (const prepare of [() => {}, () => holdGains(norm)]) {
    prepare();
    expect([gain(), gain()]).toEqual([
      [4.5, 3.5, 2.5, 1.5],
      [4.5, 3.5, 2.5, 1.5],
    ]);
  }

  const { weight } = norm;
  const slope = mx.scope(() => {
    mx.keep(weight);
    const slope = mx.grad((traced: mx.Tensor) => {
      norm.update({ weight: traced });
      return norm.forward(x()).sum();
    })(weight) as mx.Tensor;
    norm.update({ weight });
    mx.release(weight);
    return slope.toList();
  });
  expectValues(new Float32Array(slope as number[]), rms, { tolerance: 1e-6 });
  expect(gain()).toEqual([4.5, 3.5, 2.5, 1.5]);
  for (let i = 0; i < 20; i++) {
    holdGains(norm);
    weigh(i, i, i, i);
    values();
  }
  norm.dispose();
  expect(mx.liveHandles()).toBe(live);
});

test("LayerNorm: Python's values, with and without an affine part", () => {
  const normal = [-1.3416355, -0.4472118, 0.4472118, 1.3416355];
  const [affine, plain] = [new LayerNorm(4), new LayerNorm(4, 1e-5, { affine: false })];
  mx.scope(() => {
    affine.update({ bias: mx.array([1, 1, 1, 1], "float32") });
    expectValues(
      affine.forward(x()).toArray(),
      normal.map((value) => value + 1),
    );
    expectValues(plain.forward(x()).toArray(), normal);
    expect(plain.namedParameters()).toEqual([]);
  });
  affine.dispose();
});
