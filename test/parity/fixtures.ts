/** Reading test/fixtures, which test/oracle writes, and comparing tensors with what stands there. */
import { expect } from "bun:test";
import { readFileSync } from "node:fs";
import type { Dtype, Tensor } from "../../src/mlx";

/** A number of the fixtures: what JSON has no word for is a string, a complex number a pair. */
type Written = number | boolean | "inf" | "-inf" | "nan" | [Written, Written];

/** A tensor's expected dtype, shape and values, flat in row-major order. */
export interface Expected {
  dtype: Dtype;
  shape: number[];
  values: Written[];
}

export function fixture<T>(name: string): T {
  return JSON.parse(readFileSync(new URL(`../fixtures/${name}`, import.meta.url), "utf8")) as T;
}

/** Base64 of little-endian float32. */
export function float32(base64: string): Float32Array {
  return new Float32Array(new Uint8Array(Buffer.from(base64, "base64")).buffer);
}

/** Written numbers as plain ones, complex ones as two in a row. */
export function plain(values: readonly Written[]): number[] {
  return values.flatMap((value) => {
    if (Array.isArray(value)) return plain(value);
    return value === "inf" ? Infinity : value === "-inf" ? -Infinity : Number(value);
  });
}

export interface Closeness {
  /** Largest difference, relative to 1 or to the expected magnitude, whichever is larger. */
  tolerance?: number;
  /** Compare absolute values: where a library may choose the sign. */
  magnitude?: boolean;
}

/** Fails with the first element that is too far from its expected value. */
export function expectValues(
  actual: ArrayLike<number | bigint>,
  expected: ArrayLike<number>,
  closeness: Closeness = {},
) {
  const { tolerance = 1e-5, magnitude = false } = closeness;
  const sized = (value: number) => (magnitude ? Math.abs(value) : value);
  expect(actual.length).toBe(expected.length);
  for (let i = 0; i < expected.length; i++) {
    const [got, wanted] = [sized(Number(actual[i])), sized(expected[i]!)];
    const close = Object.is(got, wanted) || Math.abs(got - wanted) <= tolerance * Math.max(1, Math.abs(wanted));
    if (!close) expect({ element: i, value: got }).toEqual({ element: i, value: wanted });
  }
}

/** Compares dtype, shape and values. */
export function expectTensor(actual: Tensor, expected: Expected, closeness: Closeness = {}) {
  expect({ dtype: actual.dtype, shape: [...actual.shape] }).toEqual({ dtype: expected.dtype, shape: expected.shape });
  expectValues(actual.toArray(), plain(expected.values), closeness);
}
