/** Convolution along time. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { silu } from "./activations";
import { uniformWeight } from "./init";
import { Module, parameter } from "./module";

/** Each channel's last few inputs, weighted: what recurrent layers look back with. */
export class CausalConv1d extends Module {
  /** (C, K, 1) */
  weight: Tensor;
  bias?: Tensor;

  constructor(
    readonly channels: number,
    readonly kernelSize: number,
    { bias = true } = {},
  ) {
    super();
    this.weight = parameter(uniformWeight([channels, kernelSize, 1], kernelSize));
    if (bias) this.bias = parameter(mx.zeros([channels]));
  }

  /**
   * x (B, T, C) → (B, T, C), and the inputs that the next call looks back at. One kernel for all of it where there is one.
   */
  forward(x: Tensor, options: ConvolutionOptions = {}): [y: Tensor, after: Tensor] {
    const { weight, bias } = this;
    return mx.fast.shortConvolution(x, { weight, bias, ...options }) ?? this.#byOperations(x, options);
  }

  #byOperations(
    x: Tensor,
    { before, own, lengths, opening, gate, silu: active }: ConvolutionOptions,
  ): [Tensor, Tensor] {
    const [batch, length] = x.shape as [number, number, number];
    const kept = this.kernelSize - 1;
    const opened = opening ? opening.multiply(x) : x;
    const entering = own ? mx.where(own.expandDims(-1), opened, 0) : opened;
    const padded = mx.concatenate([before ?? mx.zeros([batch, kept, this.channels], x.dtype), entering], { axis: 1 });
    const sums = depthwise(padded, this.weight);
    const biased = this.bias ? sums.add(this.bias) : sums;
    const y = active ? silu(biased) : biased;
    const after = lastOwn(padded, kept, lengths ?? new Array<number>(batch).fill(length));
    return [gate ? gate.multiply(y) : y, after];
  }
}

export interface ConvolutionOptions {
  /** The K − 1 inputs before the first, (B, K − 1, C); zeros where null. */
  before?: Tensor | null;
  /** Which tokens are a row's own, (B, T); others count as zeros. Null for all. */
  own?: Tensor | null;
  /** How many of the tokens are each row's own; null for all. */
  lengths?: readonly number[] | null;
  /** x is multiplied by it, (B, T, C). */
  opening?: Tensor;
  /** Results are multiplied by it, (B, T, C). */
  gate?: Tensor;
  /** Whether sums pass silu. */
  silu?: boolean;
}

/**
 * Each channel's sum over K neighbours: x (B, T + K − 1, C), weight (C, K, 1) → (B, T, C). On a CPU as K products of shifted
 * inputs: MLX's own loop there is ten times slower.
 */
function depthwise(x: Tensor, weight: Tensor): Tensor {
  const [channels, size] = weight.shape as [number, number, number];
  if (mx.defaultDevice() === "gpu") return mx.conv1d(x, weight, { groups: channels });
  const wide = x.astype("float32");
  const taps = weight.astype("float32").squeeze(-1).T;
  const length = x.dim(1) - size + 1;
  if (length === 1) return wide.multiply(taps).sum({ axis: 1, keepdims: true }).astype(x.dtype);
  const products = Array.from({ length: size }, (_, j) => mx.sliceAxis(wide, 1, j, j + length).multiply(taps.at(j)));
  return products.reduce((sum, product) => sum.add(product)).astype(x.dtype);
}

/** The `count` entries of each row that end with its own last one: x (B, count + T, C) → (B, count, C). */
function lastOwn(x: Tensor, count: number, lengths: readonly number[]): Tensor {
  const [first] = lengths as [number];
  if (lengths.every((length) => length === first)) return mx.sliceAxis(x, 1, first, first + count);
  const places = lengths.flatMap((length) => Array.from({ length: count }, (_, i) => length + i));
  return mx.takeAlongAxis(x, mx.array(places, "int32", [lengths.length, count, 1]), { axis: 1 });
}

/** Changes the map's convolutions to (C, K, 1): most programs save them as (C, 1, K). */
export function turnConvolutions(weights: Map<string, Tensor>): void {
  for (const [name, weight] of weights) {
    if (/conv_?1d\.weight$/.test(name) && weight.dim(-1) !== 1) weights.set(name, mx.moveaxis(weight, 2, 1));
  }
}
