/**
 * Layers whose weight lies in ggml's blocks, as a GGUF file has it: no number is rounded, and the file's own pages are read.
 * They run; training, saving and quantizing take MLX's forms.
 */
import type { Dtype, Tensor } from "../mlx";
import * as mx from "../mlx";
import { Embedding } from "./embedding";
import { type Layer, Linear } from "./linear";
import { Module, parameter } from "./module";
import { type ExpertLayer, SwitchLinear } from "./switch-linear";

/** A type of blocks. */
export interface BlockType {
  name: string;
  /** What files call it. */
  code: number;
  /** Numbers in a block. */
  block: number;
  /** Bytes of a block. */
  bytes: number;
}

/** A weight of rows of whole blocks, (…, inputDims) numbers as (…, bytes) uint8; its values come when it is loaded. */
function blockWeight(shape: readonly number[], { block, bytes }: BlockType): Tensor {
  return parameter(mx.zeros([...shape.slice(0, -1), (shape.at(-1)! / block) * bytes], "uint8"));
}

/** How many numbers a row of blocks has. */
const numbersIn = (weight: Tensor, { block, bytes }: BlockType) => (weight.dim(-1) / bytes) * block;

export class BlockLinear extends Module implements Layer {
  /** (outputDims, bytes), uint8 */
  weight: Tensor;
  /** (outputDims) */
  bias?: Tensor;
  /** This layer and its neighbours as one, where `fuseProjections` joined them. */
  _joint?: Module;

  constructor(
    inputDims: number,
    outputDims: number,
    readonly blocks: BlockType,
    { bias }: { bias?: Tensor } = {},
  ) {
    super();
    this.weight = blockWeight([outputDims, inputDims], blocks);
    if (bias) this.bias = parameter(bias);
    this.freeze();
  }

  get inputDims(): number {
    return numbersIn(this.weight, this.blocks);
  }

  /** x (…, inputDims) → (…, outputDims) */
  forward(x: Tensor): Tensor {
    return blockLinear(x, this, this.blocks);
  }

  /** The weight's numbers, (outputDims, inputDims). */
  unpacked(dtype: Dtype): Tensor {
    return mx.unpackBlocks(this.weight, this.blocks.code, dtype);
  }
}

/** x (…, K), weight (N, bytes), bias (N) → (…, N) */
export function blockLinear(x: Tensor, { weight, bias }: { weight: Tensor; bias?: Tensor }, blocks: BlockType): Tensor {
  const product = mx.blockMatmul(x, weight, blocks.code);
  return bias ? product.add(bias) : product;
}

export class BlockEmbedding extends Module {
  /** (count, bytes), uint8 */
  weight: Tensor;

  constructor(
    count: number,
    dims: number,
    readonly blocks: BlockType,
    /** Of the vectors. */
    readonly dtype: Dtype,
  ) {
    super();
    this.weight = blockWeight([count, dims], blocks);
    this.freeze();
  }

  get inputDims(): number {
    return numbersIn(this.weight, this.blocks);
  }

  /** ids (…) of integers below `count`, which nothing checks → (…, dims) */
  forward(ids: Tensor): Tensor {
    return mx.unpackBlocks(this.weight.take(ids, 0), this.blocks.code, this.dtype);
  }

  /** Scores of every entry: x (…, dims) → (…, count) */
  asLinear(x: Tensor): Tensor {
    return mx.blockMatmul(x, this.weight, this.blocks.code);
  }

  /** (count, dims) */
  unpacked(dtype: Dtype): Tensor {
    return mx.unpackBlocks(this.weight, this.blocks.code, dtype);
  }
}

/** One linear layer per expert. */
export class BlockSwitchLinear extends Module implements ExpertLayer {
  /** (experts, outputDims, bytes), uint8 */
  weight: Tensor;
  /** (experts, outputDims) */
  bias?: Tensor;

  constructor(
    inputDims: number,
    outputDims: number,
    experts: number,
    readonly blocks: BlockType,
    { bias }: { bias?: Tensor } = {},
  ) {
    super();
    this.weight = blockWeight([experts, outputDims, inputDims], blocks);
    if (bias) this.bias = parameter(bias);
    this.freeze();
  }

  get inputDims(): number {
    return numbersIn(this.weight, this.blocks);
  }

  forward(x: Tensor, indices: Tensor): Tensor {
    const product = mx.gatherBlockMm(x, this.weight, indices, this.blocks.code);
    return this.bias ? product.add(this.bias.take(indices, 0).expandDims(-2)) : product;
  }

  /** (experts, outputDims, inputDims) */
  unpacked(dtype: Dtype): Tensor {
    return mx.unpackBlocks(this.weight, this.blocks.code, dtype);
  }
}

export type BlockLayer = BlockLinear | BlockEmbedding | BlockSwitchLinear;

export const isBlockLayer = (module: Module): module is BlockLayer =>
  module instanceof BlockLinear || module instanceof BlockEmbedding || module instanceof BlockSwitchLinear;

const plain: readonly unknown[] = [Linear, Embedding, SwitchLinear];

/** Whether there is a layer for weights in blocks that can stand for this one. */
export const takesBlocks = (module: Module): boolean => plain.includes(module.constructor);

/**
 * Puts layers for weights in blocks in the place of plain ones, before the weights are loaded.
 * @param blocks by the layers' paths, all of which `takesBlocks` holds for
 * @param dtype of what embeddings give
 */
export function placeBlocks(model: Module, blocks: ReadonlyMap<string, BlockType>, dtype: Dtype): void {
  for (const [path, module] of model.namedModules()) {
    const type = blocks.get(path);
    if (!type) continue;
    model.replace(
      path,
      mx.scope(() => inBlocks(path, module, type, dtype)),
    );
    module.dispose();
  }
}

function inBlocks(path: string, module: Module, type: BlockType, dtype: Dtype): BlockLayer {
  if (module instanceof Linear) {
    const [outputDims, inputDims] = module.weight.shape as [number, number];
    return new BlockLinear(inputDims, outputDims, type, { bias: module.bias?.add(0) });
  }
  if (module instanceof Embedding) {
    const [count, dims] = module.weight.shape as [number, number];
    return new BlockEmbedding(count, dims, type, dtype);
  }
  if (module instanceof SwitchLinear) {
    const [experts, outputDims, inputDims] = module.weight.shape as [number, number, number];
    return new BlockSwitchLinear(inputDims, outputDims, experts, type, { bias: module.bias?.add(0) });
  }
  throw new Error(`${path}: a ${module.constructor.name} has no form for blocks`);
}
