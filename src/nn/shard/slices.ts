/** Layers that keep only some of their outputs or inputs. */
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import { Linear, QuantizedLinear } from "../linear";
import type { Module } from "../module";
import { QuantizedSwitchLinear, SwitchLinear } from "../switch-linear";
import { noteInputs, noteOutputs, piecesOf } from "./kept";
import type { Range } from "./split";

type Plain = Linear | QuantizedLinear | SwitchLinear | QuantizedSwitchLinear;

/** A layer with a low-rank change: its factors end and begin with what the base does. */
interface Adapted extends Module {
  linear: Plain;
  lora_a: Tensor;
  lora_b: Tensor;
}

export type Sliceable = Plain | Adapted;

const isPlain = (layer: unknown): layer is Plain =>
  [Linear, QuantizedLinear, SwitchLinear, QuantizedSwitchLinear].some((kind) => layer instanceof kind);

/** An adapter with other parameters than these, as DoRA has, is none. */
function isAdapted(layer: unknown): layer is Adapted {
  const { linear, lora_a, lora_b, ...rest } = { ...(layer as Adapted) };
  return isPlain(linear) && !!lora_a && !!lora_b && !Object.values(rest).some((value) => value instanceof mx.Tensor);
}

export const isSliceable = (layer: unknown): layer is Sliceable => isPlain(layer) || isAdapted(layer);

const baseOf = (layer: Sliceable): Plain => (isPlain(layer) ? layer : layer.linear);

const isPacked = (layer: Plain): layer is QuantizedLinear | QuantizedSwitchLinear => "packing" in layer;

export const outputsOf = (layer: Sliceable): number => baseOf(layer).weight.dim(-2);

export function inputsOf(layer: Sliceable): number {
  const base = baseOf(layer);
  return isPacked(base) ? base.scales.dim(-1) * base.packing.groupSize : base.weight.dim(-1);
}

/** How many inputs stay together: those of a group of packed weights. */
export function inputUnit(layer: Sliceable): number {
  const base = baseOf(layer);
  return isPacked(base) ? base.packing.groupSize : 1;
}

/** Parameters by name; absent ones are left out. */
type Rows = Partial<Record<"weight" | "scales" | "biases" | "bias", Tensor>>;

function update(layer: Plain, names: readonly (keyof Rows)[], change: (x: Tensor) => Tensor): void {
  const rows = layer as Rows;
  const present = names.filter((name) => rows[name] !== undefined);
  (layer as Module).update(present.map((name) => [name, mx.scope(() => change(rows[name]!))] as const));
}

/** Leaves these outputs of a layer, in this order. */
export function keepOutputs(layer: Sliceable, pieces: readonly Range[]): void {
  const base = baseOf(layer);
  noteOutputs(base, pieces);
  update(base, ["weight", "scales", "biases"], (x) => piecesOf(x, x.ndim - 2, pieces));
  update(base, ["bias"], (x) => piecesOf(x, x.ndim - 1, pieces));
  if (isAdapted(layer)) layer.update([["lora_b", mx.scope(() => piecesOf(layer.lora_b, 1, pieces))]]);
}

/**
 * Leaves these inputs of a layer, and those that are packed in one group with them.
 * @returns how many more inputs it has ahead of them and behind
 */
export function keepInputs(layer: Sliceable, [start, end]: Range): [before: number, after: number] {
  const unit = inputUnit(layer);
  const [first, last] = [Math.floor(start / unit) * unit, Math.ceil(end / unit) * unit];
  const inputs = inputsOf(layer);
  noteInputs(baseOf(layer), [first, last]);
  update(baseOf(layer), ["weight", "scales", "biases"], (x) => {
    // Words of packed inputs, or scales of groups.
    const columns = (at: number) => (at * x.dim(-1)) / inputs;
    return piecesOf(x, x.ndim - 1, [[columns(first), columns(last)]]);
  });
  if (isAdapted(layer)) {
    const axis = layer.lora_a.ndim === 2 ? 0 : 2;
    layer.update([["lora_a", mx.scope(() => piecesOf(layer.lora_a, axis, [[first, last]]))]]);
  }
  return [start - first, last - end];
}

/** Takes a layer's bias away and returns it. */
export function takeBias(layer: Sliceable): Tensor | undefined {
  const base = baseOf(layer);
  const { bias } = base;
  base.bias = undefined;
  return bias;
}
