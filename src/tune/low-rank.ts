/** What all adapters have: two thin matrices, whose product is added to a frozen weight. Hu et al. 2021, arXiv:2106.09685. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { type BlockLayer, isBlockLayer, Module, type Packing, parameter } from "../nn";
import { unpack } from "../nn/linear";
import { Dropout } from "./dropout";

export interface LowRankOptions {
  /** The inner dimension of the product. */
  rank: number;
  /** Factor on the product. */
  scale: number;
  /** Probability that an input of the product is dropped while training. */
  dropout: number;
}

/** A module that stands in for a layer, and can become a plain layer again. */
export interface Adapter extends Module {
  /** A new layer with the adapter's change in its weight, packed as the base is unless `dequantize`. Lazy. */
  fuse(options?: { dequantize?: boolean }): Module;
}

export function isAdapter(module: Module): module is Adapter {
  return "fuse" in module;
}

export abstract class LowRank extends Module {
  lora_a: Tensor;
  lora_b: Tensor;
  readonly dropout: Dropout;
  readonly scale: number;

  /** The product of the factors starts at zero. @param fanIn how many inputs the first factor sums over */
  constructor(shapeA: readonly number[], shapeB: readonly number[], fanIn: number, options: LowRankOptions) {
    super();
    this.lora_a = parameter(firstFactor(shapeA, fanIn));
    this.lora_b = parameter(mx.zeros(shapeB));
    this.dropout = new Dropout(options.dropout);
    this.scale = options.scale;
  }
}

function firstFactor(shape: readonly number[], fanIn: number): Tensor {
  const bound = 1 / Math.sqrt(fanIn);
  return mx.scope(() => {
    // mlx-lm makes a layer that it then replaces by the base. Its draw counts, or a seed would give other numbers.
    mx.random.uniform();
    return mx.random.uniform({ low: -bound, high: bound, shape });
  });
}

/** A layer's parameters, packed or not. */
export interface Base {
  weight: Tensor;
  scales?: Tensor;
  biases?: Tensor;
  global_scale?: Tensor;
  packing?: Packing;
}

const inBlocks = (base: Base): base is BlockLayer => base instanceof Module && isBlockLayer(base);

/** The base's weight in floating point. */
export function denseWeight(base: Base): Tensor {
  if (inBlocks(base)) return base.unpacked("float32");
  return isPacked(base) ? unpack(base, base.packing) : base.weight;
}

export function isPacked<B extends Base>(base: B): base is B & { scales: Tensor; packing: Packing } {
  return base.packing !== undefined;
}

/** How many inputs a row of the base's weight has. */
export function inputDimsOf(base: Base): number {
  if (inBlocks(base)) return base.inputDims;
  return isPacked(base) ? base.scales.dim(-1) * base.packing.groupSize : base.weight.dim(-1);
}
