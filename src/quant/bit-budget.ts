/** Which layers get more bits, so that the model takes a given number of bits a weight. */
import { parameterCount } from "../convert/quantize-model";
import { ExitCode, UserError } from "../errors";
import * as mx from "../mlx";
import type { Module } from "../nn";
import type { Width } from "./gptq";
import type { Sensitivities } from "./sensitivities";
import { quantizableLayers } from "./source-model";

interface LayerSize {
  path: string;
  /** Numbers in the weight. */
  size: number;
  lowBytes: number;
  highBytes: number;
}

/** What a model with some layers in high precision would take, without making it. */
export class BitBudget {
  readonly layers: readonly LayerSize[];
  readonly #otherBytes: number;
  readonly #count: number;

  constructor(model: Module, low: Width, high: Width) {
    const layers = quantizableLayers(model);
    const bytes = (size: number, { bits, groupSize }: Width, itemSize: number) =>
      (size * bits) / 8 + 2 * (size / groupSize) * itemSize;
    this.layers = layers.map(([path, { weight }]) => {
      const item = mx.itemSize(weight.dtype);
      return {
        path,
        size: weight.size,
        lowBytes: bytes(weight.size, low, item),
        highBytes: bytes(weight.size, high, item),
      };
    });
    const all = model.namedParameters().reduce((sum, [, { nbytes }]) => sum + nbytes, 0);
    this.#otherBytes = layers.reduce((rest, [, { weight }]) => rest - weight.nbytes, all);
    this.#count = parameterCount(model);
  }

  /** Bits a weight where these layers are in high precision. */
  bitsPerWeight(isHigh: (layer: string) => boolean): number {
    const bytes = this.layers.reduce(
      (sum, { path, lowBytes, highBytes }) => sum + (isHigh(path) ? highBytes : lowBytes),
      this.#otherBytes,
    );
    return (bytes * 8) / this.#count;
  }

  /** @throws UserError for a target below all low or above all high */
  checkTarget(target: number): void {
    const [least, most] = [this.bitsPerWeight(() => false), this.bitsPerWeight(() => true)];
    if (target >= least && target <= most) return;
    throw new UserError(
      `${target} bits a weight cannot be reached: this model takes from ${least.toFixed(3)} to ${most.toFixed(3)}`,
      { code: ExitCode.usage, hint: "Take another --target-bpw, or others of --low-bits and --high-bits." },
    );
  }

  /** The target, or the nearest that the model can take. */
  nearest(target: number): number {
    return Math.min(
      Math.max(
        target,
        this.bitsPerWeight(() => false),
      ),
      this.bitsPerWeight(() => true),
    );
  }

  /** The sensitivity above which layers are in high precision, by bisection as mlx-lm's. */
  threshold(sensitivities: Sensitivities, target: number): number {
    const values = [...sensitivities.values()];
    let [low, high] = [Math.min(...values), Math.max(...values)];
    const tolerance = 1e-3 * (high - low);
    while (high - low > tolerance) {
      const middle = (high + low) / 2;
      const bits = this.bitsPerWeight((path) => sensitivities.get(path)! > middle);
      if (bits > target) low = middle;
      else high = middle;
    }
    return (high + low) / 2;
  }

  /** As many weights in high precision as where `isHigh` says, in layers spread evenly over the model. */
  spread(isHigh: (layer: string) => boolean): Set<string> {
    const sum = (layers: readonly LayerSize[]) => layers.reduce((sizes, { size }) => sizes + size, 0);
    const share = sum(this.layers.filter(({ path }) => isHigh(path))) / sum(this.layers);
    const chosen = new Set<string>();
    let due = 0;
    for (const { path, size } of this.layers) {
      due += share * size;
      if (due < size / 2) continue;
      due -= size;
      chosen.add(path);
    }
    return chosen;
  }
}
