/**
 * Hyper-connections: several residual streams, which each part of a layer reads as a weighted sum, and which are mixed anew
 * when it adds to them. Zhu et al. 2024, arXiv:2409.19606; the mixing is doubly stochastic, by Sinkhorn's iteration, as in
 * Xie et al. 2025, arXiv:2512.24880.
 */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { Module, parameter } from "./module";

export interface HyperConnectionSizes {
  dims: number;
  streams: number;
  /** Rounds of Sinkhorn's iteration. */
  rounds: number;
  eps: number;
  /** Of the norm over all streams. */
  normEps: number;
}

/** All float32. */
export interface StreamWeights {
  /** By which the next part reads the streams, (B, T, S). */
  read: Tensor;
  /** By which a part's result enters each stream, (B, T, S). */
  write: Tensor;
  /** From the streams ahead of the part to those behind it, (B, T, S, S). */
  mix: Tensor;
}

export class HyperConnection extends Module {
  /** ((2 + S) · S, S · D) */
  fn: Tensor;
  /** ((2 + S) · S) */
  base: Tensor;
  /** Of the weights to read, to write and to mix by, (3). */
  scale: Tensor;
  /** Which of the scales each weight has. */
  readonly _kinds: Tensor;

  constructor(readonly sizes: HyperConnectionSizes) {
    super();
    const { dims, streams: S } = sizes;
    this.fn = parameter(mx.zeros([(2 + S) * S, S * dims]));
    this.base = parameter(mx.zeros([(2 + S) * S]));
    this.scale = parameter(mx.ones([3]));
    const kinds = [S, S, S * S].flatMap((count, kind) => new Array<number>(count).fill(kind));
    this._kinds = mx.keep(mx.array(kinds, "int32"));
  }

  /** The weights of streams (B, T, S, D). */
  forward(streams: Tensor): StreamWeights {
    const { streams: S, rounds, eps, normEps } = this.sizes;
    const flat = mx.fast.rmsNorm(streams.flatten(-2).astype("float32"), null, normEps);
    const weights = flat.matmul(this.fn.T).multiply(this.scale.take(this._kinds, 0)).add(this.base);
    const [read, write, mix] = weights.split([S, 2 * S], -1) as [Tensor, Tensor, Tensor];
    return {
      read: read.sigmoid().add(eps),
      write: write.sigmoid().multiply(2),
      mix: balanced(mx.softmax(mix.unflatten(-1, [S, S]), { axis: -1 }).add(eps), rounds, eps),
    };
  }

  /** Streams (B, T, S, D) behind a part that reads them, (B, T, D), and gives as much. */
  around(streams: Tensor, part: (read: Tensor) => Tensor): Tensor {
    const weights = this.forward(streams);
    return writeStreams(part(readStreams(streams, weights.read)), streams, weights);
  }
}

/** Columns and rows of x (…, S, S) made to sum to one, over and over; columns last. */
function balanced(x: Tensor, rounds: number, eps: number): Tensor {
  const along = (axis: number, matrix: Tensor) => matrix.divide(matrix.sum({ axis, keepdims: true }).add(eps));
  let matrix = along(-2, x);
  for (let round = 1; round < rounds; round++) matrix = along(-2, along(-1, matrix));
  return matrix;
}

/** As many copies of x (B, T, D): (B, T, S, D) */
export function streamsOf(x: Tensor, count: number): Tensor {
  const [batch, length, dims] = x.shape as [number, number, number];
  return mx.broadcastTo(x.expandDims(2), [batch, length, count, dims]);
}

/** What a part reads: streams (B, T, S, D) and weights (B, T, S) → (B, T, D) */
export const readStreams = (streams: Tensor, weights: Tensor): Tensor =>
  weights.expandDims(-2).matmul(streams.astype("float32")).squeeze(-2).astype(streams.dtype);

/** The streams (B, T, S, D) behind a part whose result is x (B, T, D). */
export function writeStreams(x: Tensor, streams: Tensor, { write, mix }: StreamWeights): Tensor {
  const mixed = mix.swapaxes(-1, -2).matmul(streams.astype("float32"));
  const entering = write.expandDims(-1).multiply(x.expandDims(-2));
  return mixed.add(entering).astype(streams.dtype);
}
