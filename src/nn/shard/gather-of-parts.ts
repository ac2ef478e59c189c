/** A layer whose outputs are divided among ranks and put together again: the head of a model. */
import type { distributed, Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { Layer } from "../linear";
import { Module } from "../module";
import { keepOutputs, outputsOf, type Sliceable } from "./slices";
import type { Split } from "./split";

export class GatherOfParts extends Module implements Layer {
  readonly #group: distributed.Group;
  readonly #outputs: number;
  /** How many outputs each rank sends; the last ones may have less, and pad. */
  readonly #each: number;

  constructor(
    readonly layer: Sliceable & Layer,
    { group }: Split,
  ) {
    super();
    this.#group = group;
    this.#outputs = outputsOf(layer);
    this.#each = Math.ceil(this.#outputs / group.size);
    const start = Math.min(group.rank * this.#each, this.#outputs - 1);
    keepOutputs(layer, [[start, Math.min(start + this.#each, this.#outputs)]]);
  }

  /** x (…, K) → (…, N) */
  forward(x: Tensor): Tensor {
    const own = this.layer.forward(x);
    const lacking = this.#each - own.dim(-1);
    const even: [number, number][] = Array.from({ length: own.ndim }, () => [0, 0]);
    const part = lacking > 0 ? mx.pad(own, [...even.slice(1), [0, lacking]]) : own;
    // (size, …, each) → (…, size · each)
    const all = mx.distributed.allGather(part.expandDims(0), { group: this.#group });
    const joint = all.moveaxis(0, -2).flatten(-2, -1);
    return joint.dim(-1) === this.#outputs ? joint : mx.sliceAxis(joint, -1, 0, this.#outputs);
  }
}
