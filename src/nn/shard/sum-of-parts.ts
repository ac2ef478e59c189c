/** Layers whose inputs are divided among ranks: their results are summed. */
import type { distributed, Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { Layer } from "../linear";
import { Module } from "../module";
import { inputsOf, keepInputs, type Sliceable, takeBias } from "./slices";
import type { Range, Split } from "./split";

/** The sum over all ranks of what the layer makes of each rank's inputs. The bias is added once. */
export class SumOfParts extends Module implements Layer {
  /** (N) */
  bias?: Tensor;
  readonly #group: distributed.Group;
  readonly #pads: readonly [before: number, after: number];
  readonly #counts: boolean;
  readonly #alike: boolean;

  constructor(
    readonly layer: Sliceable & Layer,
    inputs: Range,
    { group, size }: Split,
    /** Whether this rank's inputs are nobody else's too, and whether all ranks have as many. */
    { counts = true, alike = true } = {},
  ) {
    super();
    this.#alike = alike && (inputs[1] - inputs[0]) * size === inputsOf(layer);
    this.#pads = keepInputs(layer, inputs);
    this.bias = takeBias(layer);
    this.#group = group;
    this.#counts = counts;
  }

  /**
   * The layer and its group, where the sum of the layer's own results is all that this computes, and that of layers of
   * the same size on all ranks: then what a kernel does for one it does for all.
   */
  get plain(): { layer: Layer; group: distributed.Group } | null {
    const [before, after] = this.#pads;
    const isPlain =
      this.#alike &&
      this.#counts &&
      !this.bias &&
      before + after === 0 &&
      this.forward === SumOfParts.prototype.forward;
    return isPlain ? { layer: this.layer, group: this.#group } : null;
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
