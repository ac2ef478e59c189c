/** mx.random against Python's from seed 42, call after call: the values, and the state that each call leaves. */
import { expect, test } from "bun:test";
import type { Tensor } from "../../src/mlx";
import * as mx from "../../src/mlx";
import { type Expected, expectTensor, fixture } from "./fixtures";
import { counted } from "./tensors";

interface Row {
  fn: string;
  args: unknown[];
  kwargs: Record<string, unknown>;
  expected: Expected;
  state: number[];
}

/** 0, 1, 2, … as float32. */
const counting = (shape: number[]) => counted(shape).subtract(1);

function decode(value: unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  const [[kind, of]] = Object.entries(value) as [[string, number | number[]]];
  switch (kind) {
    case "arange":
      return counting([of as number]);
    case "scaled": {
      const [n, by] = of as [number, number];
      return counting([n]).multiply(by);
    }
    case "grid":
      return counting(of as number[]);
    case "eye":
      return mx.eye(of as number);
    case "key":
      return mx.random.key(of as number);
    default:
      throw new Error(`the fixture has an argument of unknown kind ${kind}`);
  }
}

const camelCase = (name: string) => name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());

/** `split` without a number gives two keys; Python has them as the rows of one array. */
const pair = (args: unknown[]) => mx.stack(mx.random.split(decode(args[0]) as Tensor));

function draw({ fn, args, kwargs }: Row): Tensor {
  const options = Object.fromEntries(Object.entries(kwargs).map(([key, value]) => [camelCase(key), decode(value)]));
  const call = mx.random[camelCase(fn) as "uniform"] as unknown as (...args: unknown[]) => Tensor;
  if (fn === "split")
    return options.num === undefined ? pair(args) : mx.random.split(decode(args[0]) as Tensor, options.num as number);
  return call(...args.map(decode), options);
}

test("seed 42 gives Python's numbers, call after call", () => {
  mx.random.seed(42);
  for (const row of fixture<Row[]>("random.json")) {
    mx.scope(() => {
      expectTensor(draw(row), row.expected, { tolerance: mx.isFloating(row.expected.dtype) ? 1e-6 : 0 });
      expect({ after: row.fn, state: [...mx.random.state.get().toArray()] }).toEqual({
        after: row.fn,
        state: row.state,
      });
    });
  }
});

test("a state that is set again repeats what followed it", () => {
  mx.scope(() => {
    mx.random.seed(42);
    mx.random.uniform({ shape: [3] });
    const state = mx.random.state.get();
    const first = mx.random.normal({ shape: [4] }).toArray();
    mx.random.state.set(state);
    expect(mx.random.normal({ shape: [4] }).toArray()).toEqual(first);
  });
});
