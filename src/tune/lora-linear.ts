/** LoRA on linear layers, plain, packed, or one for each expert. Hu et al. 2021, arXiv:2106.09685. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  type BlockLinear,
  type BlockSwitchLinear,
  type Layer,
  Linear,
  parameter,
  type QuantizedLinear,
  type QuantizedSwitchLinear,
  SwitchLinear,
} from "../nn";
import { expertProducts } from "../nn/expert-products";
import { type Adapter, type Base, denseWeight, inputDimsOf, isPacked, LowRank, type LowRankOptions } from "./low-rank";

/** y + scale · dropout(x) A B, with A (inputDims, rank) and B (rank, outputDims). */
export class LoraLinear extends LowRank implements Layer, Adapter {
  constructor(
    readonly linear: Linear | QuantizedLinear | BlockLinear,
    options: LowRankOptions,
  ) {
    const inputDims = inputDimsOf(linear);
    super([inputDims, options.rank], [options.rank, linear.weight.dim(0)], inputDims, options);
  }

  /** x (…, inputDims) → (…, outputDims) */
  forward(x: Tensor): Tensor {
    const { lora_a, lora_b, scale } = this;
    const dropped = this.dropout.forward(x);
    return mx.fast.lowRank(this.linear.forward(x), dropped, lora_a, lora_b, scale);
  }

  fuse({ dequantize = false }: { dequantize?: boolean } = {}): Linear | QuantizedLinear {
    const weight = denseWeight(this.linear);
    const change = this.lora_b.T.multiply(this.scale).matmul(this.lora_a.T);
    const fused = linearOf(weight.add(change.astype(weight.dtype)), this.linear.bias);
    return repacked(fused, this.linear, dequantize);
  }
}

/** A linear layer of a weight (outputDims, inputDims) and a bias. */
export function linearOf(weight: Tensor, bias: Tensor | undefined): Linear {
  const [outputDims, inputDims] = weight.shape as [number, number];
  const layer = new Linear(inputDims, outputDims, { bias: false }).update({ weight });
  if (bias) layer.bias = parameter(bias);
  return layer;
}

/** The layer packed as the base is, where that is packed and not `dequantize`; the plain one is freed then. */
export function repacked<P extends { toQuantized(options: object): Q; dispose(): void }, Q>(
  plain: P,
  base: LinearBase,
  dequantize: boolean,
  more: object = {},
): P | Q {
  if (dequantize || !isPacked(base)) return plain;
  const packed = plain.toQuantized({ ...base.packing, ...more });
  plain.dispose();
  return packed;
}

type LinearBase = Parameters<typeof isPacked>[0];

/** The same for every expert: A (experts, rank, inputDims) and B (experts, outputDims, rank). */
export class LoraSwitchLinear extends LowRank implements Adapter {
  constructor(
    readonly linear: SwitchLinear | QuantizedSwitchLinear | BlockSwitchLinear,
    options: LowRankOptions,
  ) {
    const inputDims = inputDimsOf(linear);
    const [experts, outputDims] = linear.weight.shape as [number, number];
    super([experts, options.rank, inputDims], [experts, outputDims, options.rank], inputDims, options);
  }

  /** x (…, 1, 1 or k, M, inputDims), indices (…, k) of experts → (…, k, M, outputDims) */
  forward(x: Tensor, indices: Tensor, { sorted = false }: { sorted?: boolean } = {}): Tensor {
    const inner = expertProducts(this.dropout.forward(x), this.lora_a, indices, sorted);
    const change = expertProducts(inner, this.lora_b, indices, sorted);
    return this.linear.forward(x, indices, { sorted }).add(change.multiply(this.scale).astype(x.dtype));
  }

  fuse({ dequantize = false }: { dequantize?: boolean } = {}): SwitchLinear | QuantizedSwitchLinear {
    const weight = denseWeight(this.linear);
    const change = this.lora_b.multiply(this.scale).matmul(this.lora_a);
    const [experts, outputDims, inputDims] = weight.shape as [number, number, number];
    const fused = new SwitchLinear(inputDims, outputDims, experts, { bias: false });
    fused.update({ weight: weight.add(change.astype(weight.dtype)) });
    if (this.linear.bias) fused.bias = parameter(this.linear.bias);
    const { global_scale }: Base = this.linear;
    return repacked(fused, this.linear, dequantize, { globalScale: global_scale !== undefined });
  }
}
