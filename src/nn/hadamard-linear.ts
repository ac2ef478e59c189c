/**
 * Packed layers whose weights were rotated ahead of packing: signs, then a Walsh–Hadamard transform of each block of the
 * inputs spread outliers over all of them. Inputs get the same rotation. Ashkboos et al. 2024, arXiv:2404.00456.
 */
import { UserError } from "../errors";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { TokenEmbedding } from "./decoder";
import { type Layer, quantizedLinear } from "./linear";
import { Module, parameter } from "./module";

const packing = { groupSize: 128, bits: 2, mode: "affine" } as const;

/** Widths of blocks; 0 for layers that are not rotated. */
const blocks = [0, 512, 1024, 2048, 4096, 8192];

class RotatedWeight extends Module {
  /** (outputDims, inputDims / 16), uint32 */
  weight: Tensor;
  /** (outputDims, inputDims / 128), float16 */
  scales: Tensor;
  biases: Tensor;
  /** −1 or 1 for each input, (inputDims), where there is a rotation. */
  signs?: Tensor;
  readonly packing = packing;

  /** @throws UserError for a width that cannot be packed, or not be rotated in such blocks */
  constructor(
    inputDims: number,
    outputDims: number,
    readonly block: number,
  ) {
    super();
    if (inputDims % packing.groupSize !== 0 || !blocks.includes(block) || (block > 0 && inputDims % block !== 0)) {
      throw new UserError(`a layer of ${inputDims} inputs cannot be packed with rotations in blocks of ${block}`, {
        hint: `Inputs must be a multiple of ${packing.groupSize} and of the block, which is one of ${blocks.join(", ")}.`,
      });
    }
    this.weight = parameter(mx.zeros([outputDims, inputDims / 16], "uint32"));
    this.scales = parameter(mx.zeros([outputDims, inputDims / packing.groupSize], "float16"));
    this.biases = parameter(mx.zeros([outputDims, inputDims / packing.groupSize], "float16"));
    if (block > 0) this.signs = parameter(mx.ones([inputDims]));
    this.freeze();
  }

  /** x (…, inputDims), rotated → (…, outputDims) */
  protected multiply(x: Tensor): Tensor {
    const rotated = this.signs ? this.#transform(x.astype("float32").multiply(this.signs)).astype(x.dtype) : x;
    return quantizedLinear(rotated, this, packing);
  }

  /** The way back from the rotation: x (…, inputDims) */
  protected turnBack(x: Tensor): Tensor {
    return this.signs ? this.#transform(x.astype("float32")).multiply(this.signs).astype(x.dtype) : x;
  }

  #transform(x: Tensor): Tensor {
    return mx.hadamardTransform(x.unflatten(-1, [-1, this.block]), { scale: this.block ** -0.5 }).flatten(-2);
  }
}

export class HadamardLinear extends RotatedWeight implements Layer {
  /** x (…, inputDims) → (…, outputDims) */
  forward(x: Tensor): Tensor {
    return this.multiply(x);
  }
}

export class HadamardEmbedding extends RotatedWeight implements TokenEmbedding {
  /** ids (…) of integers below outputDims, which nothing checks → (…, inputDims), float16 */
  forward(ids: Tensor): Tensor {
    const rows = (tensor: Tensor) => tensor.take(ids, 0);
    const vectors = mx.dequantize(rows(this.weight), rows(this.scales), rows(this.biases), packing);
    return this.turnBack(vectors.astype("float16"));
  }

  /** Scores of every entry: x (…, inputDims) → (…, outputDims) */
  asLinear(x: Tensor): Tensor {
    return this.multiply(x);
  }
}
