/** Layers of many experts of which each token uses a few. Shazeer et al. 2017, arXiv:1701.06538. */

import type { Quantization, Tensor } from "../mlx";
import * as mx from "../mlx";
import { swiglu } from "./activations";
import { expertProducts } from "./expert-products";
import { uniformWeight } from "./init";
import { type Packing, pack, packing, type Quantizable, unpack } from "./linear";
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

  toQuantized(options?: Quantization): QuantizedSwitchLinear {
    const [experts, outputDims, inputDims] = this.weight.shape as [number, number, number];
    const layer = new QuantizedSwitchLinear(inputDims, outputDims, experts, { ...options, bias: false });
    layer.update({ ...pack(this.weight, layer.packing) });
    if (this.bias) layer.bias = parameter(this.bias);
    return layer;
  }
}

/** One packed linear layer per expert. */
export class QuantizedSwitchLinear extends Module implements ExpertLayer {
  /** (experts, outputDims, inputDims · bits / 32), uint32 */
  weight: Tensor;
  /** (experts, outputDims, inputDims / groupSize) */
  scales: Tensor;
  /** Like `scales`; only in affine mode. */
  biases?: Tensor;
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

  forward(x: Tensor, indices: Tensor, { sorted = false }: ExpertOptions = {}): Tensor {
    const options = { ...this.packing, rhsIndices: indices, sortedIndices: sorted };
    const { weight, scales, biases = null } = this;
    // The gradient of scales is a product of experts, for which MLX's kernel on the CPU knows float32 only.
    const widens = x.dtype !== "float32" && this.trains("scales") && mx.defaultDevice() === "cpu";
    const wide = (tensor: Tensor) => tensor.astype("float32");
    const product = widens
      ? mx.gatherQmm(wide(x), weight, wide(scales), biases && wide(biases), options).astype(x.dtype)
      : mx.gatherQmm(x, weight, scales, biases, options);
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

/** From how many expert uses on tokens are sorted by expert, so that each expert's weight is read in one go. */
const sortingPays = 64;

/** x (…, 1, 1, K) flattened and in the order of experts, the indices likewise, whose rows they are, and the way back. */
function sortByExpert(x: Tensor, indices: Tensor): { x: Tensor; indices: Tensor; places: Tensor; inverse: Tensor } {
  const perToken = indices.dim(-1);
  const flat = indices.flatten();
  const order = mx.argsort(flat);
  const places = order.floorDivide(perToken);
  return { x: x.flatten(0, -3).take(places, 0), indices: flat.take(order, 0), places, inverse: mx.argsort(order) };
}

export interface SwitchGLUOptions {
  bias?: boolean;
  activation?: (gate: Tensor, x: Tensor) => Tensor;
}

/** A gated feed-forward block per expert. */
export class SwitchGLU extends Module {
  gate_proj: ExpertLayer;
  up_proj: ExpertLayer;
  down_proj: ExpertLayer;
  readonly activation: (gate: Tensor, x: Tensor) => Tensor;

  constructor(
    dims: number,
    hiddenDims: number,
    experts: number,
    { bias = false, activation = swiglu }: SwitchGLUOptions = {},
  ) {
    super();
    this.gate_proj = new SwitchLinear(dims, hiddenDims, experts, { bias });
    this.up_proj = new SwitchLinear(dims, hiddenDims, experts, { bias });
    this.down_proj = new SwitchLinear(hiddenDims, dims, experts, { bias });
    this.activation = activation;
  }

  /** x (…, dims), indices (…, k) of the experts for each token → (…, k, dims) */
  forward(x: Tensor, indices: Tensor): Tensor {
    return throughExperts(x, indices, (x, indices, options) => {
      const up = this.up_proj.forward(x, indices, options);
      const gate = this.gate_proj.forward(x, indices, options);
      return this.down_proj.forward(this.activation(gate, up), indices, options);
    });
  }
}

/** A feed-forward block without a gate per expert. */
export class SwitchMLP extends Module {
  fc1: ExpertLayer;
  fc2: ExpertLayer;

  constructor(
    dims: number,
    hiddenDims: number,
    experts: number,
    readonly activation: (x: Tensor) => Tensor,
  ) {
    super();
    this.fc1 = new SwitchLinear(dims, hiddenDims, experts, { bias: false });
    this.fc2 = new SwitchLinear(hiddenDims, dims, experts, { bias: false });
  }

  /** x (…, dims), indices (…, k) of the experts for each token → (…, k, dims) */
  forward(x: Tensor, indices: Tensor): Tensor {
    return throughExperts(x, indices, (x, indices, options) => {
      const hidden = this.activation(this.fc1.forward(x, indices, options));
      return this.fc2.forward(hidden, indices, options);
    });
  }
}

/** x (…, dims), indices (…, k) → (…, k, dims): tokens as experts take them, sorted where it pays, and back in place. */
function throughExperts(
  x: Tensor,
  indices: Tensor,
  compute: (x: Tensor, indices: Tensor, options: ExpertOptions) => Tensor,
): Tensor {
  const chosen = mx.stopGradient(indices);
  const tokens = x.expandDims([-2, -3]);
  if (chosen.size < sortingPays) return compute(tokens, chosen, {}).squeeze(-2);
  const sorted = sortByExpert(tokens, chosen);
  const options = { sorted: true, tokens: { places: sorted.places, count: chosen.size / chosen.dim(-1) } };
  const results = compute(sorted.x, sorted.indices, options).take(sorted.inverse, 0);
  return results.unflatten(0, chosen.shape).squeeze(-2);
}
