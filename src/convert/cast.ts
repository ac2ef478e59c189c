/** A model's weights in another dtype. */

import * as mx from "../mlx";
import { type Dtype, isInexact } from "../mlx";
import type { Module } from "../nn";

/** MLX takes the scales of whole experts in float32 only. */
const isGlobalScale = (name: string) => name.endsWith(".global_scale");

/** Lazy. @param keepsDtype of the weights that it says yes to, the dtype stays; of integers it always does */
export function cast(model: Module, dtype: Dtype, keepsDtype: (path: string) => boolean = () => false): void {
  mx.scope(() => {
    const stays = (name: string) => keepsDtype(name) || isGlobalScale(name);
    const changing = model.namedParameters().filter(([name, { dtype }]) => isInexact(dtype) && !stays(name));
    model.update(changing.map(([name, tensor]) => [name, tensor.astype(dtype)]));
  });
}
