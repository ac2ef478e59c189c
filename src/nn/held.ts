/** Tensors that are made of a layer's weight once, when a model is loaded, and not for each token. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { Module, parameter } from "./module";

/** A tensor and the weight that it was made of. */
export class HeldTensor extends Module {
  readonly _tensor: Tensor;

  constructor(
    readonly _weight: Tensor,
    make: (weight: Tensor) => Tensor,
  ) {
    super();
    mx.keep(_weight);
    this._tensor = parameter(make(_weight));
  }
}

/** A layer that may hold a tensor: a hidden field of it, which frees that. */
export interface Holder {
  weight: Tensor;
  _held?: HeldTensor;
}

/** Makes the tensor, which the layer holds from now on. Lazy. */
export function hold(layer: Holder, make: (weight: Tensor) => Tensor): Tensor {
  layer._held?.dispose();
  layer._held = mx.scope(() => new HeldTensor(layer.weight, make));
  return layer._held._tensor;
}

/** The tensor that the layer holds. It is dropped when the weight is another by now: then `make` makes one for this time. */
export function heldOr(layer: Holder, make: (weight: Tensor) => Tensor): Tensor {
  const { weight, _held: held } = layer;
  if (held?._weight === weight) return held._tensor;
  if (held) {
    held.dispose();
    layer._held = undefined;
  }
  return make(weight);
}
