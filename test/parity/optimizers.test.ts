/** Optimizers and schedules against mlx.optimizers. */
import { describe, expect, test } from "bun:test";
import * as mx from "../../src/mlx";
import { AdamW, clipGradNorm, cosineDecay, joinSchedules, linearSchedule } from "../../src/optim";
import { fixture } from "./fixtures";

type Rows = number[][];

const expected = fixture<{
  gradients: Rows;
  adamw: Rows;
  adamw_corrected: Rows;
  adamw_scheduled: Rows;
  linear: number[];
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

test("schedules", () => {
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
