/** Which outputs and inputs of a divided layer this process has: what is added to it later is divided likewise. */
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { Module } from "../module";
import type { Range } from "./split";

/** Null for all of them. */
export interface Kept {
  outputs: readonly Range[] | null;
  inputs: readonly Range[] | null;
}

const byLayer = new WeakMap<Module, Kept>();

export const keptOf = (layer: Module): Kept => byLayer.get(layer) ?? { outputs: null, inputs: null };

/** @param pieces of the outputs that the layer has had so far */
export function noteOutputs(layer: Module, pieces: readonly Range[]): void {
  const before = keptOf(layer);
  byLayer.set(layer, { ...before, outputs: within(before.outputs, pieces) });
}

/** @param range of the inputs that the layer has had so far */
export function noteInputs(layer: Module, range: Range): void {
  const before = keptOf(layer);
  byLayer.set(layer, { ...before, inputs: within(before.inputs, [range]) });
}

/** The pieces of a tensor along an axis, side by side; all of it for null. */
export function piecesOf(x: Tensor, axis: number, pieces: readonly Range[] | null): Tensor {
  if (!pieces) return x;
  const parts = pieces.map(([start, end]) => mx.sliceAxis(x, axis, start, end));
  // A copy: a view would hold all of the tensor in memory.
  return parts.length === 1 ? mx.contiguous(parts[0]!) : mx.concatenate(parts, { axis });
}

/** Pieces of pieces that lie side by side, as pieces of the whole. */
function within(whole: readonly Range[] | null, pieces: readonly Range[]): readonly Range[] {
  if (!whole) return pieces;
  return pieces.flatMap(([start, end]) => {
    let place = 0;
    return whole.flatMap(([from, to]): Range[] => {
      const [first, last] = [Math.max(start, place), Math.min(end, place + to - from)];
      const offset = from - place;
      place += to - from;
      return last > first ? [[first + offset, last + offset]] : [];
    });
  });
}
