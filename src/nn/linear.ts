/** x Wᵀ + b, with W in floating point or packed in few bits. */

import type { Quantization, QuantizationMode, Tensor } from "../mlx";
import * as mx from "../mlx";
import { type HeldTensor, type Holder, heldOr, hold } from "./held";
import { uniformWeight } from "./init";
import { Module, parameter } from "./module";

/** Something that maps features: a linear layer, quantized or not, or what stands in for one (LoRA). */
export interface Layer extends Module {
  forward(x: Tensor): Tensor;
}

/** A layer in another one's place, which adds to the results of that. */
export interface StandIn extends Layer {
  readonly base: Layer;
  /** Whether it adds nothing at the moment. */
  readonly isIdle: boolean;
  /** The base's result on x (…, K), changed: (…, N) */
  changed(x: Tensor, out: Tensor): Tensor;
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

/** The packing that options ask for, with the mode's own numbers where they say none. */
export function packing({ groupSize, bits, mode = "affine" }: Quantization = {}): Packing {
  const { standard } = mx.packings[mode];
  return { groupSize: groupSize ?? standard.groupSize, bits: bits ?? standard.bits, mode };
}

/** A packed weight as the parameters of a quantized layer; only affine has biases. */
export function pack(weight: Tensor, how: Packing): { weight: Tensor; scales: Tensor; biases?: Tensor } {
  const [packed, scales, biases] = mx.quantize(weight, how);
  return biases ? { weight: packed, scales, biases } : { weight: packed, scales };
}

/** The largest of nvfp4's values by the largest of its scales: an expert with a global scale has that in its place. */
export const nvfp4Largest = 6 * 448;

interface PackedWeight {
  weight: Tensor;
  scales: Tensor;
  biases?: Tensor;
  /** Of experts in nvfp4, (experts), float32. */
  global_scale?: Tensor;
}

/** What `pack` packed, but for what rounding took. */
export function unpack({ weight, scales, biases, global_scale }: PackedWeight, how: Packing): Tensor {
  if (!global_scale) return mx.dequantize(weight, scales, biases ?? null, how);
  const factors = global_scale.divide(nvfp4Largest).expandDims([-1, -2]);
  return mx
    .dequantize(weight, scales, null, { ...how, dtype: "float32" })
    .multiply(factors)
    .astype("bfloat16");
}

/** What packing leaves of a weight, in its dtype. */
export function rounded(weight: Tensor, how: Quantization): Tensor {
  const packed = packing(how);
  return unpack(pack(weight, packed), packed);
}

/** A layer with a dense weight, which may hold its transpose: with that a product is one operation of the graph, not two. */
interface Dense extends Holder {
  /** (N, K) */
  weight: Tensor;
  /** (N) */
  bias?: Tensor;
}

const transposed = (weight: Tensor) => weight.T;

/** Holds the weight's transpose, which is a view: no memory. */
export const holdTranspose = (layer: Dense): Tensor => hold(layer, transposed);

/** x (…, K) Wᵀ + b → (…, N) */
export function linear(x: Tensor, layer: Dense): Tensor {
  const transpose = heldOr(layer, transposed);
  return layer.bias ? mx.addmm(layer.bias, x, transpose) : x.matmul(transpose);
}

/** x (…, K), packed weight (N, K · bits / 32), bias (N) → (…, N) */
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
  _joint?: Module;
  _held?: HeldTensor;

  constructor(inputDims: number, outputDims: number, { bias = true }: { bias?: boolean } = {}) {
    super();
    this.weight = parameter(uniformWeight([outputDims, inputDims], inputDims));
    if (bias) this.bias = parameter(uniformWeight([outputDims], inputDims));
  }

  /** x (…, inputDims) → (…, outputDims) */
  forward(x: Tensor): Tensor {
    return linear(x, this);
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
  _joint?: Module;
  readonly packing: Packing;
  /** Pack the inputs as the weight is packed, and multiply what is packed: some GPUs do that faster. */
  quantizesInputs = false;

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
    if (this.quantizesInputs) return mx.qqmm(x, this.weight, this.scales, this.packing);
    return quantizedLinear(x, this, this.packing);
  }

  toDense(): Linear {
    const weight = unpack(this, this.packing);
    const [outputDims, inputDims] = weight.shape as [number, number];
    const layer = new Linear(inputDims, outputDims, { bias: false });
    layer.update({ weight });
    if (this.bias) layer.bias = parameter(this.bias);
    return layer;
  }
}
