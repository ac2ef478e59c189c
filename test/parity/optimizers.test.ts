/** Optimizers and schedules against mlx.optimizers. */
import { describe, expect, test } from "bun:test";
import * as mx from "../../src/mlx";
import {
  Adafactor,
  AdamW,
  clipGradNorm,
  cosineDecay,
  exponentialDecay,
  joinSchedules,
  linearSchedule,
  Muon,
  type Optimizer,
  Sgd,
  stepDecay,
} from "../../src/optim";
import { fixture } from "./fixtures";

type Rows = number[][];

const expected = fixture<{
  gradients: Rows;
  adamw: Rows;
  adamw_corrected: Rows;
  adamw_scheduled: Rows;
  rules: Record<string, Record<"float32" | "bfloat16", Record<string, number[]>[]>>;
  linear: number[];
  exponential: number[];
  step: number[];
  cosine: number[];
  joined: number[];
  clipped: [number[], number[], number];
}>("optimizers.json");

const joined = joinSchedules([linearSchedule(0, 1e-2, 3), cosineDecay(1e-2, 5, 1e-3)], [3]);

function close(actual: readonly number[], wanted: readonly number[]): void {
  expect(actual.length).toBe(wanted.length);
  for (const [i, value] of actual.entries()) expect(Math.abs(value - wanted[i]!)).toBeLessThan(1e-6);
}

/** The parameter after each step. */
function trajectory(optimizer: AdamW): Rows {
  let parameter = mx.array([1, -2, 0.5], "float32");
  const rows = expected.gradients.map((gradient) => {
    const next = mx.scope(() => optimizer.update([["w", parameter]], new Map([["w", mx.array(gradient)]]))[0]![1]);
    parameter.dispose();
    parameter = next;
    return next.toList() as number[];
  });
  parameter.dispose();
  return rows;
}

describe("AdamW", () => {
  test.each([
    ["adamw", new AdamW(1e-2)],
    ["adamw_corrected", new AdamW(5e-3, { betas: [0.8, 0.95], eps: 1e-6, weightDecay: 0.1, biasCorrection: true })],
    ["adamw_scheduled", new AdamW(joined)],
  ] as const)("%s takes Python's steps, and frees what it held", (name, optimizer) => {
    const before = mx.liveHandles();
    trajectory(optimizer).forEach((row, i) => {
      close(row, expected[name][i]!);
    });
    expect(optimizer.state.map(([path]) => path)).toEqual(["w.m", "w.v"]);
    optimizer.dispose();
    expect(mx.liveHandles()).toBe(before);
  });
});

const rules: Record<string, () => Optimizer> = {
  adam: () => new AdamW(1e-2, { weightDecay: 0 }),
  adamw: () => new AdamW(1e-2, { weightDecay: 0.1 }),
  "adamw, corrected": () => new AdamW(1e-2, { betas: [0.8, 0.95], biasCorrection: true }),
  sgd: () => new Sgd(1e-1, { weightDecay: 0.1 }),
  "sgd, momentum": () => new Sgd(1e-1, { momentum: 0.9, dampening: 0.2 }),
  "sgd, nesterov": () => new Sgd(1e-1, { momentum: 0.9, nesterov: true }),
  muon: () => new Muon(1e-2),
  "muon, plain": () => new Muon(1e-2, { momentum: 0.8, weightDecay: 0, nesterov: false, steps: 3 }),
  adafactor: () => new Adafactor(1e-2),
  "adafactor, warm-up": () => new Adafactor(1e-2, { warmupInit: true, beta1: 0.9, weightDecay: 0.1 }),
  "adafactor, own rate": () => new Adafactor(1e-2, { relativeStep: false, scaleParameter: false, clipThreshold: 0.5 }),
};

const shapes = { tall: [4, 3], wide: [2, 5], vector: [3] };

function wave(shape: readonly number[], phase: number, dtype: mx.Dtype): mx.Tensor {
  const count = shape.reduce((product, size) => product * size, 1);
  const values = Float32Array.from({ length: count }, (_, i) => Math.sin(1.7 * i + phase));
  return mx.array(values, "float32", [...shape]).astype(dtype);
}

describe("matrices and vectors take Python's steps", () => {
  test("all rules are there", () => expect(Object.keys(rules)).toEqual(Object.keys(expected.rules)));

  test.each(Object.keys(rules).flatMap((name) => [[name, "float32"] as const, [name, "bfloat16"] as const]))(
    "%s, %s",
    (name, dtype) => {
      const before = mx.liveHandles();
      const optimizer = rules[name]!();
      const make = (phase: number): [string, mx.Tensor][] =>
        Object.entries(shapes).map(([path, shape]) => [path, wave(shape, phase, dtype)]);
      let parameters = mx.scope(() => make(0.3));
      for (const [step, wanted] of expected.rules[name]![dtype].entries()) {
        const next = mx.scope(() => optimizer.update(parameters, new Map(make(step + 1))));
        mx.eval(next, optimizer.state);
        for (const [, tensor] of parameters) tensor.dispose();
        parameters = next;
        for (const [path, tensor] of parameters) {
          const values = mx.scope(() => tensor.astype("float32").reshape(-1).toList()) as number[];
          if (dtype === "float32") close(values, wanted[path]!);
          else expect(values).toEqual(wanted[path]!.map(Math.fround));
        }
        // What was saved goes on as if nothing had been.
        if (step === 2) {
          const saved = optimizer.state.map(([path, tensor]): [string, mx.Tensor] => [
            path,
            mx.scope(() => tensor.add(0)),
          ]);
          mx.eval(saved);
          optimizer.load(saved);
        }
      }
      for (const [, tensor] of parameters) tensor.dispose();
      optimizer.dispose();
      expect(mx.liveHandles()).toBe(before);
    },
  );
});

test("schedules", () => {
  close(
    expected.exponential.map((_, step) => exponentialDecay(1e-1, 0.9)(step)),
    expected.exponential,
  );
  close(
    expected.step.map((_, step) => stepDecay(1e-1, 0.5, 2)(step)),
    expected.step,
  );
  close(
    expected.linear.map((_, step) => linearSchedule(0, 1e-2, 4)(step)),
    expected.linear,
  );
  close(
    expected.cosine.map((_, step) => cosineDecay(1e-2, 5, 1e-3)(step)),
    expected.cosine,
  );
  close(
    expected.joined.map((_, step) => joined(step)),
    expected.joined,
  );
});

test("gradients are clipped by their common norm", () => {
  mx.scope(() => {
    const gradients = new Map([
      ["a", mx.array([3, 4], "float32")],
      ["b", mx.array([12], "float32")],
    ]);
    const [clipped, norm] = clipGradNorm(gradients, 6.5);
    const [a, b, expectedNorm] = expected.clipped;
    close(clipped.get("a")!.toList() as number[], a);
    close(clipped.get("b")!.toList() as number[], b);
    close([norm.item()], [expectedNorm]);
  });
});
