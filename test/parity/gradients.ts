/** Composite functions and their inputs; test/oracle/grads.py has the same ones. */

import type { Tensor } from "../../src/mlx";
import * as mx from "../../src/mlx";
import * as losses from "../../src/nn/losses";
import { formula } from "./tensors";

const a = () => formula("a", [2, 3]);
const b = () => formula("b", [3, 4]);
const c = () => formula("c", [4]);
const x = () => formula("x", [2, 5, 8]);
const w = () => formula("w", [8]).add(1.5);
const q = () => formula("q", [1, 4, 3, 8]);
const k = () => formula("k", [1, 2, 5, 8]);

const { ellipsis, newaxis, slice } = mx;

/** A scalar function of tensors, and what makes its inputs. */
export interface Composite {
  fn: (...inputs: Tensor[]) => Tensor;
  inputs: (() => Tensor)[];
}

export const composites: Record<string, Composite> = {
  linear: { fn: (a, b, c) => mx.addmm(c!, a!, b!).square().sum(), inputs: [a, b, c] },
  silu: { fn: (a) => a!.multiply(a!.sigmoid()).mean(), inputs: [a] },
  softmax: { fn: (a) => mx.softmax(a!, { axis: -1 }).multiply(a!).sum(), inputs: [a] },
  logsumexp: { fn: (b) => b!.logsumexp({ axis: 0 }).prod(), inputs: [b] },
  broadcast: {
    fn: (a, c) => a!.at(ellipsis, newaxis).multiply(c!).divide(c!.square().add(1)).sum(),
    inputs: [a, c],
  },
  rmsNorm: { fn: (x, w) => mx.fast.rmsNorm(x!, w!, 1e-5).power(3).sum(), inputs: [x, w] },
  layerNorm: { fn: (x, w) => mx.fast.layerNorm(x!, w!, w!, 1e-5).power(3).sum(), inputs: [x, w] },
  rope: {
    fn: (q) => mx.fast.rope(q!, 8, { traditional: false, base: 100, scale: 1, offset: 2 }).cumsum(-1).square().sum(),
    inputs: [q],
  },
  attention: {
    fn: (q, k) => mx.fast.scaledDotProductAttention(q!, k!, k!, { scale: 0.35, mask: "causal" }).square().sum(),
    inputs: [q, k],
  },
  crossEntropy: {
    fn: (a) => losses.crossEntropy(a!, mx.array([1, 0], "int32"), { reduction: "mean" }),
    inputs: [a],
  },
  gather: {
    fn: (b) =>
      b!
        .at([0, 2, 2])
        .multiply(mx.array([[1], [2], [3]], "float32"))
        .sum(),
    inputs: [b],
  },
  scatter: {
    fn: (b, c) =>
      b!
        .addAt([[1, 1]], c!)
        .square()
        .sum(),
    inputs: [b, c],
  },
  assign: {
    fn: (b, c) =>
      b!
        .put([1, slice(undefined, undefined, -1)], c!)
        .square()
        .sum(),
    inputs: [b, c],
  },
  conv: {
    fn: (x, b) => {
      const kernel = b!.T.at(slice(), newaxis).multiply(mx.ones([4, 2, 1]));
      return mx
        .conv1d(x!.at(ellipsis, slice(undefined, 3)), kernel, { padding: 1 })
        .square()
        .sum();
    },
    inputs: [x, b],
  },
  checkpointed: {
    fn: (a) => (mx.checkpoint((a: Tensor) => a.tanh().multiply(a.exp()))(a!) as Tensor).sum(),
    inputs: [a],
  },
  stopped: { fn: (a) => mx.stopGradient(a!).multiply(a!).sum(), inputs: [a] },
  where: { fn: (a) => mx.where(a!.greater(0), a!.square(), a!.add(2).log()).sum(), inputs: [a] },
  sort: { fn: (a) => mx.sort(a!, { axis: -1 }).multiply(mx.arange(3)).sum(), inputs: [a] },
};
