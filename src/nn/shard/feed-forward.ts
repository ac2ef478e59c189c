/** Feed-forward blocks divided by their inner features. Shoeybi et al. 2019, arXiv:1909.08053, section 3. */
import * as mx from "../../mlx";
import type { Layer } from "../linear";
import { inputsOf, inputUnit, isSliceable, keepInputs, keepOutputs, type Sliceable, takeBias } from "./slices";
import type { Range, Split } from "./split";
import { SumOfParts } from "./sum-of-parts";

/** Products of so many features or more are no slower than they must be. */
const usefulUnit = 32;

/** The inner features of a rank; null where they cannot be divided. */
export function innerPart(down: unknown, ups: readonly unknown[], split: Split): Range | null {
  if (!isSliceable(down) || !ups.every(isSliceable)) return null;
  const inner = inputsOf(down);
  const unit = inputUnit(down);
  return (
    (inner % usefulUnit === 0 && unit < usefulUnit ? split.part(inner, usefulUnit) : null) ?? split.part(inner, unit)
  );
}

/**
 * Leaves a rank's inner features of experts; of the last layer's bias, the first rank's.
 * @returns whether they could be divided: then the results of all ranks are to be summed
 */
export function divideExperts(down: unknown, ups: readonly unknown[], split: Split): boolean {
  const part = innerPart(down, ups, split);
  // Their inputs are no rows that zeros could be put beside.
  if (!part || !isSliceable(down) || part.some((edge) => edge % inputUnit(down) !== 0)) return false;
  for (const up of ups) keepOutputs(up as Sliceable, [part]);
  keepInputs(down, part);
  if (split.rank > 0) {
    const bias = takeBias(down);
    if (bias) mx.release(bias);
  }
  return true;
}

/** Leaves a rank's inner features of layers one behind the other, and returns what takes the place of the last. */
export function divideInner(down: Layer, ups: readonly Layer[], split: Split): Layer {
  const part = innerPart(down, ups, split);
  if (!part) return down;
  for (const up of ups) keepOutputs(up as unknown as Sliceable, [part]);
  return new SumOfParts(down as never, part, split);
}
