/** A linear layer for each head, which can be applied either way round. */
import type { Quantization, Tensor } from "../mlx";
import * as mx from "../mlx";
import { uniformWeight } from "./init";
import { type Packing, pack, packing, type Quantizable, unpack } from "./linear";
import { Module, parameter } from "./module";

/** What maps each head's features by a matrix of its own. */
export interface HeadLayer extends Module {
  /** x (B, H, T, K) → (B, H, T, N); x of one head serves all. */
  forward(x: Tensor): Tensor;
  /** By the transposed matrices: x (B, H, T, N) → (B, H, T, K) */
  backward(x: Tensor): Tensor;
}

export class MultiLinear extends Module implements HeadLayer, Quantizable {
  /** (heads, outputDims, inputDims) */
  weight: Tensor;

  constructor(inputDims: number, outputDims: number, heads: number) {
    super();
    this.weight = parameter(uniformWeight([heads, outputDims, inputDims], inputDims));
  }

  forward(x: Tensor): Tensor {
    return x.matmul(this.weight.swapaxes(-1, -2));
  }

  backward(x: Tensor): Tensor {
    return x.matmul(this.weight);
  }

  toQuantized(options?: Quantization): QuantizedMultiLinear {
    const [heads, outputDims, inputDims] = this.weight.shape as [number, number, number];
    const layer = new QuantizedMultiLinear(inputDims, outputDims, heads, options);
    return layer.update({ ...pack(this.weight, layer.packing) });
  }
}

/** The same with packed matrices. */
export class QuantizedMultiLinear extends Module implements HeadLayer {
  /** (heads, outputDims, inputDims · bits / 32), uint32 */
  weight: Tensor;
  /** (heads, outputDims, inputDims / groupSize) */
  scales: Tensor;
  /** Like `scales`; only in affine mode. */
  biases?: Tensor;
  readonly packing: Packing;

  constructor(inputDims: number, outputDims: number, heads: number, options: Quantization = {}) {
    super();
    this.packing = packing(options);
    const packed = mx.scope(() => pack(uniformWeight([heads, outputDims, inputDims], inputDims), this.packing));
    this.weight = parameter(packed.weight);
    this.scales = parameter(packed.scales);
    if (packed.biases) this.biases = parameter(packed.biases);
    this.freeze();
  }

  forward(x: Tensor): Tensor {
    return this.#product(x, true);
  }

  backward(x: Tensor): Tensor {
    return this.#product(x, false);
  }

  #product(x: Tensor, transpose: boolean): Tensor {
    return mx.quantizedMatmul(x, this.weight, this.scales, this.biases ?? null, { ...this.packing, transpose });
  }

  toDense(): MultiLinear {
    const weight = unpack(this, this.packing);
    const [heads, outputDims, inputDims] = weight.shape as [number, number, number];
    return new MultiLinear(inputDims, outputDims, heads).update({ weight });
  }
}
