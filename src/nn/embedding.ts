/** Vectors by token id, which may serve as the output projection too (tied embeddings). */

import type { Quantization, Tensor } from "../mlx";
import * as mx from "../mlx";
import type { HeldTensor } from "./held";
import { normalWeight } from "./init";
import { linear, type Packing, pack, packing, type Quantizable, quantizedLinear, unpack } from "./linear";
import { Module, parameter } from "./module";

export class Embedding extends Module implements Quantizable {
  /** (count, dims) */
  weight: Tensor;
  _held?: HeldTensor;

  constructor(count: number, dims: number) {
    super();
    this.weight = parameter(normalWeight([count, dims], dims));
  }

  /** ids (…) of integers below `count`, which nothing checks → (…, dims) */
  forward(ids: Tensor): Tensor {
    return this.weight.take(ids, 0);
  }

  /** Scores of every entry: x (…, dims) → (…, count) */
  asLinear(x: Tensor): Tensor {
    return linear(x, this);
  }

  toQuantized(options?: Quantization): QuantizedEmbedding {
    const [count, dims] = this.weight.shape as [number, number];
    const embedding = new QuantizedEmbedding(count, dims, options);
    return embedding.update({ ...pack(this.weight, embedding.packing) });
  }
}

export class QuantizedEmbedding extends Module {
  /** (count, dims · bits / 32), uint32 */
  weight: Tensor;
  /** (count, dims / groupSize) */
  scales: Tensor;
  /** Like `scales`; only in affine mode. */
  biases?: Tensor;
  readonly packing: Packing;

  constructor(count: number, dims: number, options: Quantization = {}) {
    super();
    this.packing = packing(options);
    const packed = mx.scope(() => pack(normalWeight([count, dims], dims), this.packing));
    this.weight = parameter(packed.weight);
    this.scales = parameter(packed.scales);
    if (packed.biases) this.biases = parameter(packed.biases);
    this.freeze();
  }

  /** ids (…) of integers below `count`, which nothing checks → (…, dims) */
  forward(ids: Tensor): Tensor {
    const rows = (tensor: Tensor) => tensor.take(ids, 0);
    const biases = this.biases ? rows(this.biases) : null;
    return mx.dequantize(rows(this.weight), rows(this.scales), biases, this.packing);
  }

  /** Scores of every entry: x (…, dims) → (…, count) */
  asLinear(x: Tensor): Tensor {
    return quantizedLinear(x, this, this.packing);
  }

  toDense(): Embedding {
    const weight = unpack(this, this.packing);
    const [count, dims] = weight.shape as [number, number];
    return new Embedding(count, dims).update({ weight });
  }
}
