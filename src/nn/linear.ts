/** x Wᵀ + b, with W in floating point or packed in few bits. */

import type { Quantization, QuantizationMode, Tensor } from "../mlx";
import * as mx from "../mlx";
import { uniformWeight } from "./init";
import { Module, parameter } from "./module";
import type { JointProjection } from "./projection";

/** Something that maps features: a linear layer, quantized or not, or what stands in for one (LoRA). */
export interface Layer {
  forward(x: Tensor): Tensor;
}

/** A layer whose weight can be packed. */
export interface Quantizable extends Module {
  weight: Tensor;
  toQuantized(options?: Quantization): Module;
}

/** How a layer's weight is packed, all said. */
export interface Packing {
  readonly groupSize: number;
  readonly bits: number;
  readonly mode: QuantizationMode;
}

const modeDefaults: Record<QuantizationMode, [groupSize: number, bits: number]> = {
  affine: [64, 4],
  mxfp4: [32, 4],
  mxfp8: [32, 8],
  nvfp4: [16, 4],
};

/** The packing that options ask for, with the mode's own numbers where they say none. */
export function packing({ groupSize, bits, mode = "affine" }: Quantization = {}): Packing {
  const [defaultGroup, defaultBits] = modeDefaults[mode];
  return { groupSize: groupSize ?? defaultGroup, bits: bits ?? defaultBits, mode };
}

/** A packed weight as the parameters of a quantized layer; only affine has biases. */
export function pack(weight: Tensor, how: Packing): { weight: Tensor; scales: Tensor; biases?: Tensor } {
  const [packed, scales, biases] = mx.quantize(weight, how);
  return biases ? { weight: packed, scales, biases } : { weight: packed, scales };
}

/** x (…, K), weight (N, K), bias (N) → (…, N) */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor): Tensor {
  return bias ? mx.addmm(bias, x, weight.T) : x.matmul(weight.T);
}

/** `linear` with a packed weight (N, K · bits / 32). */
export function quantizedLinear(
  x: Tensor,
  { weight, scales, biases, bias }: { weight: Tensor; scales: Tensor; biases?: Tensor; bias?: Tensor },
  how: Packing,
): Tensor {
  const product = mx.quantizedMatmul(x, weight, scales, biases ?? null, how);
  return bias ? product.add(bias) : product;
}

export class Linear extends Module implements Layer, Quantizable {
  /** (outputDims, inputDims) */
  weight: Tensor;
  /** (outputDims) */
  bias?: Tensor;
  /** This layer and its neighbours as one, where `fuseProjections` joined them. */
  _joint?: JointProjection;

  constructor(inputDims: number, outputDims: number, { bias = true }: { bias?: boolean } = {}) {
    super();
    this.weight = parameter(uniformWeight([outputDims, inputDims], inputDims));
    if (bias) this.bias = parameter(uniformWeight([outputDims], inputDims));
  }

  /** x (…, inputDims) → (…, outputDims) */
  forward(x: Tensor): Tensor {
    return linear(x, this.weight, this.bias);
  }

  toQuantized(options?: Quantization): QuantizedLinear {
    const [outputDims, inputDims] = this.weight.shape as [number, number];
    const layer = new QuantizedLinear(inputDims, outputDims, { ...options, bias: false });
    layer.update({ ...pack(this.weight, layer.packing) });
    if (this.bias) layer.bias = parameter(this.bias);
    return layer;
  }
}

/** A linear layer with a packed weight. Its parameters are frozen, but a bias that it takes over from a `Linear`. */
export class QuantizedLinear extends Module implements Layer {
  /** (outputDims, inputDims · bits / 32), uint32 */
  weight: Tensor;
  /** (outputDims, inputDims / groupSize) */
  scales: Tensor;
  /** Like `scales`; only in affine mode. */
  biases?: Tensor;
  /** (outputDims) */
  bias?: Tensor;
  /** This layer and its neighbours as one, where `fuseProjections` joined them. */
  _joint?: JointProjection;
  readonly packing: Packing;

  constructor(
    inputDims: number,
    outputDims: number,
    { bias = true, ...options }: Quantization & { bias?: boolean } = {},
  ) {
    super();
    this.packing = packing(options);
    const packed = mx.scope(() => pack(uniformWeight([outputDims, inputDims], inputDims), this.packing));
    this.weight = parameter(packed.weight);
    this.scales = parameter(packed.scales);
    if (packed.biases) this.biases = parameter(packed.biases);
    if (bias) this.bias = parameter(mx.zeros([outputDims]));
    this.freeze();
  }

  /** x (…, inputDims) → (…, outputDims) */
  forward(x: Tensor): Tensor {
    return quantizedLinear(x, this, this.packing);
  }
}
