/** x Wᵀ · s with W of −1, 0 and 1 alone. Ma et al. 2024, arXiv:2402.17764. */
import { UserError } from "../errors";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { Layer } from "./linear";
import { Module, parameter } from "./module";

/** Output rows in a byte: rows i, i + N / 4, i + N / 2 and i + 3 N / 4, each one higher by one. */
const rowsPerByte = 4;

/** Two bits are an affine form of MLX: 0, 1, 2 with scale 1 and bias −1. */
const bits = 2;

const groupSizes = [128, 64, 32];

/** A ternary weight in the form that MLX multiplies with: made once, beside the checkpoint's own. */
class TernaryWeight extends Module {
  readonly _packed: Tensor;
  readonly _scales: Tensor;
  readonly _biases: Tensor;

  constructor(
    readonly _source: Tensor,
    readonly groupSize: number,
  ) {
    super();
    mx.keep(_source);
    const [bytes, inputDims] = _source.shape as [number, number];
    const outputDims = bytes * rowsPerByte;
    const parts = mx.scope(() => {
      const rows = [0, 2, 4, 6].map((shift) => _source.rightShift(shift).bitwiseAnd(3).astype("uint32"));
      const perWord = 32 / bits;
      const shifts = mx.arange(perWord, undefined, 1, { dtype: "uint32" }).multiply(bits);
      const grouped = mx.concatenate(rows).reshape(outputDims, inputDims / perWord, perWord);
      const scales = mx.ones([outputDims, inputDims / groupSize]);
      return [grouped.leftShift(shifts).sum({ axis: -1 }), scales, scales.negative()] as const;
    });
    [this._packed, this._scales, this._biases] = parts.map(parameter) as [Tensor, Tensor, Tensor];
  }

  /** x (…, K) float32 → (…, N) float32 */
  multiply(x: Tensor): Tensor {
    return mx.quantizedMatmul(x, this._packed, this._scales, this._biases, { groupSize: this.groupSize, bits });
  }
}

export interface BitLinearOptions {
  bias?: boolean;
  /** `weight_scale` divides: the checkpoints of BitNet's first tools. */
  divides?: boolean;
}

export class BitLinear extends Module implements Layer {
  /** (outputDims / 4, inputDims), uint8: two bits for each output */
  weight: Tensor;
  /** (1) */
  weight_scale: Tensor;
  /** (outputDims) */
  bias?: Tensor;
  _ternary?: TernaryWeight;
  readonly divides: boolean;

  /** @throws UserError for dims that cannot be packed */
  constructor(inputDims: number, outputDims: number, { bias = true, divides = false }: BitLinearOptions = {}) {
    super();
    if (outputDims % rowsPerByte !== 0 || inputDims % groupSizes.at(-1)! !== 0) {
      throw new UserError(`a ternary layer of ${outputDims} × ${inputDims} cannot be packed`, {
        hint: `Outputs must be a multiple of ${rowsPerByte}, inputs of ${groupSizes.at(-1)}.`,
      });
    }
    this.weight = parameter(mx.zeros([outputDims / rowsPerByte, inputDims], "uint8"));
    this.weight_scale = parameter(mx.ones([1]));
    if (bias) this.bias = parameter(mx.zeros([outputDims]));
    this.divides = divides;
  }

  /** x (…, inputDims) → (…, outputDims), summed in float32 */
  forward(x: Tensor): Tensor {
    const product = this.#current().multiply(x.astype("float32"));
    const scale = this.weight_scale.astype("float32");
    const scaled = (this.divides ? product.divide(scale) : product.multiply(scale)).astype(x.dtype);
    return this.bias ? scaled.add(this.bias) : scaled;
  }

  #current(): TernaryWeight {
    if (this._ternary?._source === this.weight) return this._ternary;
    this._ternary?.dispose();
    const groupSize = groupSizes.find((size) => this.weight.dim(1) % size === 0)!;
    this._ternary = new TernaryWeight(this.weight, groupSize);
    return this._ternary;
  }
}
