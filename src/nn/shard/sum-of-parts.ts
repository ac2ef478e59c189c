/** Layers whose inputs are divided among ranks: their results are summed. */
import type { distributed, Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { Layer } from "../linear";
import { Module } from "../module";
import { keepInputs, type Sliceable, takeBias } from "./slices";
import type { Range, Split } from "./split";

/** The sum over all ranks of what the layer makes of each rank's inputs. The bias is added once. */
export class SumOfParts extends Module implements Layer {
  /** (N) */
  bias?: Tensor;
  readonly #group: distributed.Group;
  readonly #pads: readonly [before: number, after: number];
  readonly #counts: boolean;

  constructor(
    readonly layer: Sliceable & Layer,
    inputs: Range,
    { group }: Split,
    /** Whether this rank's inputs are nobody else's too. */
    { counts = true } = {},
  ) {
    super();
    this.#pads = keepInputs(layer, inputs);
    this.bias = takeBias(layer);
    this.#group = group;
    this.#counts = counts;
  }

  /** x (…, this rank's inputs) → (…, N) */
  forward(x: Tensor): Tensor {
    const [before, after] = this.#pads;
    const none: [number, number][] = Array.from({ length: x.ndim - 1 }, () => [0, 0]);
    const inputs = before + after > 0 ? mx.pad(x, [...none, [before, after]]) : x;
    const part = this.layer.forward(inputs);
    // Computed all the same: norms ahead of it may be sums over ranks too.
    const own = this.#counts ? part : mx.depends([mx.zerosLike(part)], [part])[0]!;
    const sum = mx.distributed.allSum(own, { group: this.#group });
    return this.bias ? sum.add(this.bias) : sum;
  }
}
