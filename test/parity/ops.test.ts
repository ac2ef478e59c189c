/** Every operation of the façade, once or more, against Python's numbers. */
import { expect, test } from "bun:test";
import type { Dtype, Tensor } from "../../src/mlx";
import * as mx from "../../src/mlx";
import { type Expected, expectTensor, fixture, plain } from "./fixtures";
import { formula } from "./tensors";

interface Row {
  op: string;
  args: unknown[];
  kwargs?: Record<string, unknown>;
  tolerance?: number;
  magnitude?: boolean;
  expected: Expected | Expected[];
}

/** An input tensor: the weights' formula stretched to [low, high), or the values themselves. */
type Input = { shape: number[]; dtype: Dtype } & (
  | { key: string; low: number; high: number }
  | { values: Expected["values"] }
);

function tensor(input: Input): Tensor {
  if ("values" in input) return mx.array(plain(input.values), "float32", input.shape).astype(input.dtype);
  return formula(input.key, input.shape, input.low, input.high).astype(input.dtype);
}

function decode(value: unknown): unknown {
  if (Array.isArray(value)) return value.map((item) => (typeof item === "object" ? decode(item) : item));
  return typeof value === "object" && value !== null ? tensor(value as Input) : value;
}

function call({ op, args, kwargs = {} }: Row): Tensor[] {
  const path = op.split(".");
  const owner = path
    .slice(0, -1)
    .reduce((room, name) => room[name] as Record<string, unknown>, mx as Record<string, unknown>);
  const fn = owner[path.at(-1)!] as ((...args: unknown[]) => Tensor | Tensor[]) | undefined;
  if (!fn) throw new Error(`the façade has no ${op}`);
  const options = Object.entries(kwargs).map(([key, value]) => [key, decode(value)]);
  const out = fn(...args.map(decode), ...(options.length > 0 ? [Object.fromEntries(options)] : []));
  return Array.isArray(out) ? out : [out];
}

fixture<Row[]>("ops.json").forEach((row, i) => {
  test(`${i} ${row.op}`, () => {
    mx.scope(() => {
      const expected = Array.isArray(row.expected) ? row.expected : [row.expected];
      const results = call(row);
      expect(results.length).toBe(expected.length);
      for (const [n, wanted] of expected.entries()) expectTensor(results[n]!, wanted, row);
    });
  });
});
