/** A model's weights in another dtype. */

import * as mx from "../mlx";
import { type Dtype, isInexact } from "../mlx";
import type { Module } from "../nn";

/** Lazy. @param keepsDtype of the weights that it says yes to, the dtype stays; of integers it always does */
export function cast(model: Module, dtype: Dtype, keepsDtype: (path: string) => boolean = () => false): void {
  mx.scope(() => {
    const changing = model.namedParameters().filter(([name, { dtype }]) => isInexact(dtype) && !keepsDtype(name));
    model.update(changing.map(([name, tensor]) => [name, tensor.astype(dtype)]));
  });
}
