/** Parts of recurrent layers that are divided beside their projections: tensors by heads, and convolutions by channels. */
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { CausalConv1d } from "../conv";
import type { Module } from "../module";
import type { Range } from "./split";

/** The same range so much further. */
export const behind = (offset: number, [start, end]: Range): Range => [offset + start, offset + end];

/** Leaves these places of a module's tensors along an axis, in this order. Absent tensors stay so. */
export function keepPlaces(module: Module, names: readonly string[], axis: number, pieces: readonly Range[]): void {
  const parts = module as unknown as Record<string, Tensor | undefined>;
  const present = names.filter((name) => parts[name] !== undefined);
  const kept = (x: Tensor) =>
    mx.scope(() =>
      mx.contiguous(
        mx.concatenate(
          pieces.map(([start, end]) => mx.sliceAxis(x, axis, start, end)),
          { axis },
        ),
      ),
    );
  module.update(present.map((name) => [name, kept(parts[name]!)] as const));
}

/** Leaves these channels of a convolution along time. */
export function keepChannels(convolution: CausalConv1d, pieces: readonly Range[]): void {
  keepPlaces(convolution, ["weight", "bias"], 0, pieces);
  Object.assign(convolution, { channels: pieces.reduce((sum, [start, end]) => sum + end - start, 0) });
}
