/** Linear layers of many experts. */

import type { Quantization, Tensor } from "../mlx";
import * as mx from "../mlx";
import { expertProducts, packedProducts } from "./expert-products";
import { uniformWeight } from "./init";
import { nvfp4Largest, type Packing, pack, packing, type Quantizable, unpack } from "./linear";
import { Module, parameter } from "./module";

export interface ExpertOptions {
  /** Whether the indices ascend. */
  sorted?: boolean;
  /** Where they are sorted: which of so many tokens each row of x belongs to. */
  tokens?: { places: Tensor; count: number };
}

/** What a layer of experts computes: x (…, 1, 1 or k, M, K), indices (…, k) of experts → (…, k, M, N). */
export interface ExpertLayer extends Module {
  forward(x: Tensor, indices: Tensor, options?: ExpertOptions): Tensor;
}

function addBias(x: Tensor, bias: Tensor | undefined, indices: Tensor): Tensor {
  return bias ? x.add(bias.take(indices, 0).expandDims(-2)) : x;
}

/** One linear layer per expert. */
export class SwitchLinear extends Module implements ExpertLayer, Quantizable {
  /** (experts, outputDims, inputDims) */
  weight: Tensor;
  /** (experts, outputDims) */
  bias?: Tensor;

  constructor(inputDims: number, outputDims: number, experts: number, { bias = true }: { bias?: boolean } = {}) {
    super();
    this.weight = parameter(uniformWeight([experts, outputDims, inputDims], inputDims));
    if (bias) this.bias = parameter(mx.zeros([experts, outputDims]));
  }

  forward(x: Tensor, indices: Tensor, { sorted = false }: ExpertOptions = {}): Tensor {
    return addBias(expertProducts(x, this.weight, indices, sorted), this.bias, indices);
  }

  /** @param options `globalScale`: each expert gets one, for what nvfp4 alone cannot reach; in that mode only */
  toQuantized({ globalScale = false, ...options }: Quantization & { globalScale?: boolean } = {}) {
    const [experts, outputDims, inputDims] = this.weight.shape as [number, number, number];
    const layer = new QuantizedSwitchLinear(inputDims, outputDims, experts, { ...options, bias: false });
    if (globalScale) layer.addGlobalScale();
    layer.update(globalScale ? packScaled(this.weight, layer.packing) : { ...pack(this.weight, layer.packing) });
    if (this.bias) layer.bias = parameter(this.bias);
    return layer;
  }
}

/** An expert's largest weight becomes the largest that nvfp4 has. */
function packScaled(weight: Tensor, how: Packing) {
  const largest = weight
    .abs()
    .max({ axis: [-2, -1] })
    .astype("float32");
  const globalScale = mx.where(largest.equal(0), 1, largest);
  const stretched = weight.astype("float32").multiply(mx.divide(nvfp4Largest, globalScale).expandDims([-1, -2]));
  return { ...pack(stretched, how), global_scale: globalScale };
}

/** One packed linear layer per expert. */
export class QuantizedSwitchLinear extends Module implements ExpertLayer {
  /** (experts, outputDims, inputDims · bits / 32), uint32 */
  weight: Tensor;
  /** (experts, outputDims, inputDims / groupSize) */
  scales: Tensor;
  /** Like `scales`; only in affine mode. */
  biases?: Tensor;
  /** What the largest weight of each expert can be, (experts), float32; only in nvfp4 mode, and only of some checkpoints. */
  global_scale?: Tensor;
  /** (experts, outputDims) */
  bias?: Tensor;
  readonly packing: Packing;

  constructor(
    inputDims: number,
    outputDims: number,
    experts: number,
    { bias = true, ...options }: Quantization & { bias?: boolean } = {},
  ) {
    super();
    this.packing = packing(options);
    const packed = mx.scope(() => pack(uniformWeight([experts, outputDims, inputDims], inputDims), this.packing));
    this.weight = parameter(packed.weight);
    this.scales = parameter(packed.scales);
    if (packed.biases) this.biases = parameter(packed.biases);
    if (bias) this.bias = parameter(mx.zeros([experts, outputDims]));
    this.freeze();
  }

  /** Has a parameter for global scales from here on. */
  addGlobalScale(): void {
    this.global_scale = mx.scope(() => parameter(mx.full([this.weight.dim(0)], nvfp4Largest, "float32")));
    this.freeze({ keys: ["global_scale"] });
  }

  forward(x: Tensor, indices: Tensor, { sorted = false }: ExpertOptions = {}): Tensor {
    const { weight, scales, biases, global_scale } = this;
    // The gradient of scales is a product of experts, for which MLX's kernel on the CPU knows float32 only.
    const widens = x.dtype !== "float32" && this.trains("scales") && mx.defaultDevice() === "cpu";
    const wide = (tensor: Tensor) => tensor.astype("float32");
    const how = { ...this.packing, sorted };
    const product = widens
      ? packedProducts(
          wide(x),
          { weight, scales: wide(scales), biases: biases && wide(biases), global_scale },
          indices,
          how,
        ).astype(x.dtype)
      : packedProducts(x, this, indices, how);
    return addBias(product, this.bias, indices);
  }

  toDense(): SwitchLinear {
    const weight = unpack(this, this.packing);
    const [experts, outputDims, inputDims] = weight.shape as [number, number, number];
    const layer = new SwitchLinear(inputDims, outputDims, experts, { bias: false });
    layer.update({ weight });
    if (this.bias) layer.bias = parameter(this.bias);
    return layer;
  }
}
