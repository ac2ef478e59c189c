/**
 * Random tensors. Keys are drawn in the order of MLX's Python binding (split the state, keep the first half, use the
 * second), so a seed gives the numbers that Python gives.
 */
import { evaluate } from "./devices";
import { codeOf, type Dtype } from "./dtype";
import * as abi from "./generated/ops";
import { type Operand, tensorOf, wrap, wrapAll } from "./operand";
import { keep, release } from "./scope";
import type { Tensor } from "./tensor";

let current: Tensor | null = null;

/** The generator's state: one key. `compile` captures it where a function draws random numbers. */
export const state = {
  /** The key, (2) uint32. */
  get(): Tensor {
    current ??= keep(key(Date.now()));
    return current;
  },
  set(next: Tensor): void {
    if (next === current) return;
    keep(next);
    if (current) release(current);
    current = next;
  },
};

/**
 * Computes the state. Until then it holds the graph of every draw since: where none of the numbers is used, as of weights that a
 * file replaces, that graph grows with each draw.
 */
export function settle(): void {
  if (current) evaluate(current);
}

/** Starts the global sequence anew. */
export function seed(value: number): void {
  state.set(key(value));
}

/** A key (2) of uint32 from a seed. */
export function key(value: number): Tensor {
  return wrap(abi.random_key(value));
}

/** `num` independent keys: two as a pair, or (num, 2). */
export function split(from: Tensor): [Tensor, Tensor];
export function split(from: Tensor, num: number): Tensor;
export function split(from: Tensor, num?: number): [Tensor, Tensor] | Tensor {
  if (num !== undefined) return wrap(abi.random_split(from.handle, num));
  return wrapAll(abi.random_split_pair(from.handle)) as [Tensor, Tensor];
}

interface Keyed {
  /** Used instead of the global sequence. */
  key?: Tensor | null;
}

interface Shaped extends Keyed {
  shape?: readonly number[];
  dtype?: Dtype;
}

function keyHandle(given: Tensor | null | undefined): number {
  if (given) return given.handle;
  const [next, used] = split(state.get());
  state.set(next);
  return used.handle;
}

export function bits({
  shape = [],
  width = 4,
  key: given,
}: Keyed & { shape?: readonly number[]; width?: number } = {}): Tensor {
  return wrap(abi.random_bits(shape, width, keyHandle(given)));
}

/** Uniform on [low, high). */
export function uniform(options: Shaped & { low?: Operand; high?: Operand } = {}): Tensor {
  const { low = 0, high = 1, shape = [], dtype = "float32", key: given } = options;
  const used = keyHandle(given);
  return wrap(
    abi.random_uniform(tensorOf(low, "float32").handle, tensorOf(high, "float32").handle, shape, codeOf(dtype), used),
  );
}

export function normal(options: Shaped & { loc?: Operand; scale?: Operand } = {}): Tensor {
  const { loc, scale, shape = [], dtype = "float32", key: given } = options;
  const used = keyHandle(given);
  const part = (value: Operand | undefined) => (value === undefined ? null : tensorOf(value, dtype).handle);
  return wrap(abi.random_normal(shape, codeOf(dtype), part(loc), part(scale), used));
}

export function multivariateNormal(mean: Tensor, cov: Tensor, options: Shaped = {}): Tensor {
  const { shape = [], dtype = "float32", key: given } = options;
  return wrap(abi.random_multivariate_normal(mean.handle, cov.handle, shape, codeOf(dtype), keyHandle(given)));
}

/** Integers on [low, high). */
export function randint(low: Operand, high: Operand, { shape = [], dtype = "int32", key: given }: Shaped = {}): Tensor {
  const used = keyHandle(given);
  return wrap(
    abi.random_randint(tensorOf(low, dtype).handle, tensorOf(high, dtype).handle, shape, codeOf(dtype), used),
  );
}

/** True with probability p. */
export function bernoulli(p: Operand = 0.5, { shape, key: given }: Keyed & { shape?: readonly number[] } = {}): Tensor {
  const chance = tensorOf(p, "float32");
  return wrap(abi.random_bernoulli(chance.handle, shape ?? chance.shape, keyHandle(given)));
}

export function truncatedNormal(lower: Operand, upper: Operand, options: Shaped = {}): Tensor {
  const { dtype = "float32", key: given } = options;
  const [from, to] = [tensorOf(lower, dtype), tensorOf(upper, dtype)];
  const shape = options.shape ?? (from.ndim >= to.ndim ? from.shape : to.shape);
  return wrap(abi.random_truncated_normal(from.handle, to.handle, shape, codeOf(dtype), keyHandle(given)));
}

export function gumbel({ shape = [], dtype = "float32", key: given }: Shaped = {}): Tensor {
  return wrap(abi.random_gumbel(shape, codeOf(dtype), keyHandle(given)));
}

export function laplace(options: Shaped & { loc?: number; scale?: number } = {}): Tensor {
  const { loc = 0, scale = 1, shape = [], dtype = "float32", key: given } = options;
  return wrap(abi.random_laplace(shape, codeOf(dtype), loc, scale, keyHandle(given)));
}

/** Indices drawn with probability softmax(logits) along the axis, uint32: one each, `numSamples`, or a shape of them. */
export function categorical(
  logits: Tensor,
  options: Keyed & { axis?: number; numSamples?: number; shape?: readonly number[] } = {},
): Tensor {
  const { axis = -1, numSamples, shape } = options;
  const used = keyHandle(options.key);
  if (shape) return wrap(abi.random_categorical_shape(logits.handle, axis, shape, used));
  if (numSamples !== undefined) return wrap(abi.random_categorical_samples(logits.handle, axis, numSamples, used));
  return wrap(abi.random_categorical(logits.handle, axis, used));
}

/** A random order of 0 … n−1, or of a tensor's slices along the axis. */
export function permutation(x: number | Tensor, { axis = 0, key: given }: Keyed & { axis?: number } = {}): Tensor {
  const used = keyHandle(given);
  return wrap(
    typeof x === "number" ? abi.random_permutation_range(x, used) : abi.random_permutation(x.handle, axis, used),
  );
}
