/** How a tensor's numbers lie in GGUF files, where they do not lie as in the checkpoint. */
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { TensorNames } from "./names";

/**
 * One tensor's two forms. What moves rows or columns is applied to codes, scales and biases alike, where a tensor is
 * packed.
 */
export interface TensorChange {
  /** From the file's form. */
  read(x: Tensor): Tensor;
  /** To the file's form. */
  write(x: Tensor): Tensor;
  /** What the number of rows must be a multiple of, and what they are counted by. */
  rows?: number;
  /** Columns move in blocks of so many; a tensor that is packed in groups that do not fit into them is unpacked. */
  columns?: number;
}

/** By the paths of modules and parameters within a layer: `self_attn.q_proj`, `linear_attn.A_log`. */
export type TensorChanges = Readonly<Record<string, TensorChange>>;

/** One tensor of a checkpoint that files have as several. */
export interface JoinedTensor {
  /** The file's names within the layer, without their ends: `attn_k_b`. */
  parts: readonly string[];
  /** Only rows move: the tensor stays packed where its parts are packed alike. */
  movesRows?: boolean;
  join(parts: readonly Tensor[]): Tensor;
  split(x: Tensor): Tensor[];
}

/** By the paths of modules within a layer. */
export type JoinedTensors = Readonly<Record<string, JoinedTensor>>;

/** Parameters that files have as one tensor. */
export interface MergedParameters {
  /** Their names in the checkpoint. */
  parameters: readonly string[];
  merge(parts: readonly Tensor[]): Tensor;
  part(x: Tensor): Tensor[];
}

/** By the tensor's name in files. */
export type MergedTensors = Readonly<Record<string, MergedParameters>>;

/** A tensor of a file that the checkpoint has as several, above each other. */
export interface DividedTensor {
  /** The paths of their modules within the layer. */
  places: readonly string[];
  /** How many rows each has. */
  rows: readonly number[];
}

/** By the file's names within the layer, without their ends: `attn_qkv`. */
export type DividedTensors = Readonly<Record<string, DividedTensor>>;

/** The change of a parameter, by its own path or that of its module. */
export function changeOf(changes: TensorChanges, names: TensorNames, parameter: string): TensorChange | undefined {
  const [, own] = names.withinLayer(parameter);
  for (const path of [own, own.slice(0, Math.max(own.lastIndexOf("."), 0))]) {
    if (Object.hasOwn(changes, path)) return changes[path];
  }
  return undefined;
}

/** The axis, taken as (a, b, rest), becomes (b, a, rest). */
function regroup(x: Tensor, axis: number, a: number, b: number): Tensor {
  const { shape } = x;
  const place = axis < 0 ? shape.length + axis : axis;
  const parts = [...shape.slice(0, place), a, b, shape[place]! / (a * b), ...shape.slice(place + 1)];
  return x
    .reshape(...parts)
    .swapaxes(place, place + 1)
    .reshape(...shape);
}

/** Rows of each head lie as pairs that turn together (0, D/2, 1, D/2 + 1, …), not as halves; a bias's numbers too. */
export function pairedRows(heads: number): TensorChange {
  const swapped = (x: Tensor, from: (half: number) => [number, number]) => {
    const [rows, ...rest] = x.shape as [number, ...number[]];
    return x
      .reshape(heads, ...from(rows / heads / 2), ...rest)
      .swapaxes(1, 2)
      .reshape(rows, ...rest);
  };
  return {
    rows: heads,
    read: (x) => swapped(x, (half) => [half, 2]),
    write: (x) => swapped(x, (half) => [2, half]),
  };
}

/** The same of the last rows of each head alone, so many; those before them stay. */
export function pairedTail(heads: number, turning: number): TensorChange {
  const turned = pairedRows(heads);
  const changed = (x: Tensor, change: (x: Tensor) => Tensor) => {
    const [rows, ...rest] = x.shape as [number, ...number[]];
    const [still, last] = x.reshape(heads, -1, ...rest).split([rows / heads - turning], 1) as [Tensor, Tensor];
    const moved = change(last.reshape(heads * turning, ...rest)).reshape(heads, turning, ...rest);
    return mx.concatenate([still, moved], { axis: 1 }).reshape(rows, ...rest);
  };
  return { rows: heads, read: (x) => changed(x, turned.read), write: (x) => changed(x, turned.write) };
}

/**
 * Heads that share a key's head lie apart in files: the first of every group, then the second of every group.
 * @param groups how many heads of keys there are @param perGroup how many heads share one
 */
export interface HeadGroups {
  groups: number;
  perGroup: number;
}

/** The rows from `first` on. */
export function spreadRows({ groups, perGroup }: HeadGroups, first = 0): TensorChange {
  const changed = (x: Tensor, a: number, b: number) => {
    if (first === 0) return regroup(x, 0, a, b);
    const [before, after] = x.split([first], 0) as [Tensor, Tensor];
    return mx.concatenate([before, regroup(after, 0, a, b)], { axis: 0 });
  };
  return { read: (x) => changed(x, perGroup, groups), write: (x) => changed(x, groups, perGroup) };
}

/** The columns, `width` for each head. */
export const spreadColumns = ({ groups, perGroup }: HeadGroups, width: number): TensorChange => ({
  columns: width,
  read: (x) => regroup(x, -1, perGroup, groups),
  write: (x) => regroup(x, -1, groups, perGroup),
});

/** A convolution over time: (C, K) in files, (C, K, 1) here. */
export const convolution: TensorChange = {
  read: (x) => x.expandDims(-1),
  write: (x) => x.squeeze(-1),
};

/** The same as (C, 1, K) in files, or with a further axis. */
export const channelKernels: TensorChange = {
  read: (x) => x.reshape(-1, x.dim(-1), 1),
  write: (x) => x.reshape(x.dim(0), 1, -1),
};

/** −exp(A) in files, A here; in float32. */
export const decayRate: TensorChange = {
  read: (x) => x.astype("float32").negative().log(),
  write: (x) => x.astype("float32").exp().negative(),
};

/** Files have a number more than the checkpoint: weights of norms that it counts from there. */
export const shifted = (by: number): TensorChange => ({
  read: (x) => x.subtract(by),
  write: (x) => x.astype("float32").add(by),
});

/** One change after the other, on the way to the file. */
export const inTurn = (...changes: TensorChange[]): TensorChange => ({
  read: (x) => changes.reduceRight((y, change) => change.read(y), x),
  write: (x) => changes.reduce((y, change) => change.write(y), x),
});
