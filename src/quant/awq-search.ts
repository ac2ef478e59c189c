/** AWQ's two searches: factors that make a group of layers easier to pack, and limits on a layer's weights. */
import { breathe } from "../macrotask";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  LayerNorm,
  Linear,
  type Module,
  type Packing,
  RMSNorm,
  rounded,
  SwitchLinear,
  ZeroCenteredRMSNorm,
} from "../nn";
import type { RowShare } from "./across-ranks";
import type { Captured } from "./layer-inputs";
import { runInBatches } from "./layer-inputs";

/** A layer whose weight AWQ packs. */
export type Packable = Linear | SwitchLinear;

export const isPackable = (module: unknown): module is Packable =>
  module instanceof Linear || module instanceof SwitchLinear;

/** Runs `during` with other weights in the layers, then puts theirs back. */
export async function withWeights<T>(
  layers: readonly Packable[],
  other: (weight: Tensor) => Tensor,
  during: () => Promise<T>,
): Promise<T> {
  const own = mx.keep(layers.map(({ weight }) => weight));
  try {
    mx.scope(() => {
      for (const [i, layer] of layers.entries()) layer.update([["weight", other(own[i]!)]]);
    });
    mx.eval(layers.map(({ weight }) => weight));
    return await during();
  } finally {
    for (const [i, layer] of layers.entries()) layer.update([["weight", own[i]!]]);
    mx.release(own);
  }
}

export interface ScaleSearch {
  /** What takes the input: the layers, and what is scaled with them. The first is the one that `captured` is of. */
  layers: readonly Module[];
  captured: Captured;
  /** What judges: from a batch of the input (and of the experts' indices) to an output. */
  run: (x: Tensor, indices: Tensor | null) => Tensor;
  how: Packing;
  /** How many strengths are tried. */
  grid: number;
  /** Where other ranks have other rows of the data. */
  share?: RowShare | null;
}

/**
 * The factors (K) of the group's input that lose least when the layers' weights are packed: powers of the input's mean
 * magnitude. Kept: the caller releases them.
 */
export async function searchScales({ layers, captured, run, how, grid, share }: ScaleSearch): Promise<Tensor> {
  const packed = layers.filter(isPackable);
  const exact = await runInBatches(captured, run);
  const magnitude = mx.keep(
    mx.scope(() => {
      const axes = Array.from({ length: captured.x.ndim - 1 }, (_, axis) => axis);
      const own = captured.x.abs().mean({ axis: axes });
      return share ? share.mean(own) : own;
    }),
  );
  let best: { error: number; scales: Tensor } | null = null;
  try {
    for (let step = 0; step < grid; step++) {
      const scales = mx.keep(mx.scope(() => spread(magnitude.power(step / grid))));
      const error = await withWeights(
        packed,
        (weight) => rounded(weight.multiply(scales), how).divide(scales),
        () => meanSquaredError(captured, run, { exact, share }),
      );
      if (error < (best?.error ?? Number.POSITIVE_INFINITY)) {
        if (best) mx.release(best.scales);
        best = { error, scales };
      } else mx.release(scales);
      await breathe();
    }
    // Nothing is better than infinity where a block's output is not finite: it is left as it is.
    return best?.scales ?? mx.keep(mx.scope(() => mx.onesLike(magnitude)));
  } finally {
    mx.release([exact, magnitude]);
  }
}

/** Factors whose largest and smallest lie about 1 alike. */
function spread(powers: Tensor): Tensor {
  const scales = mx.maximum(powers, 1e-4);
  return scales.divide(scales.max().multiply(scales.min()).sqrt());
}

/** The mean of (run(x) − exact)² over the rows of all ranks, summed batch by batch. */
export async function meanSquaredError(
  captured: Captured,
  run: (x: Tensor, indices: Tensor | null) => Tensor,
  { exact, share }: { exact: Tensor; share?: RowShare | null },
): Promise<number> {
  let sum = 0;
  let row = 0;
  await runInBatches(
    captured,
    (x, indices) => {
      const rows = exact.at(mx.slice(row, row + x.dim(0)));
      row += x.dim(0);
      return rows.subtract(run(x, indices)).astype("float32").square().sum();
    },
    (part) => {
      sum += part.item();
    },
  );
  const [total, count] = share ? share.sums([sum, exact.size]) : [sum, exact.size];
  return total! / count!;
}

/**
 * Moves the factors: what comes before is divided by them, the layers' columns multiplied, and what was captured of
 * their inputs divided.
 * @throws Error for a module before them that has no outputs to divide
 */
export function applyScales(before: Module, layers: readonly Module[], scales: Tensor): void {
  mx.scope(() => {
    divideOutputs(before, scales);
    for (const layer of layers) {
      const { weight } = layer as Module & { weight: Tensor };
      layer.update([["weight", weight.multiply(scales)]]);
    }
  });
}

function divideOutputs(before: Module, scales: Tensor): void {
  if (before instanceof ZeroCenteredRMSNorm) {
    const { weight } = before;
    const gain = weight.astype("float32").add(1).divide(scales);
    before.update([["weight", gain.subtract(1).astype(weight.dtype)]]);
  } else if (isPackable(before)) {
    before.update([["weight", before.weight.divide(scales.expandDims(-1))]]);
    if (before.bias) before.update([["bias", before.bias.divide(scales)]]);
  } else if (before instanceof RMSNorm || (before instanceof LayerNorm && before.weight)) {
    before.update([["weight", before.weight!.divide(scales)]]);
    if (before instanceof LayerNorm && before.bias) before.update([["bias", before.bias.divide(scales)]]);
  } else throw new Error(`a ${before.constructor.name} has no outputs to divide`);
}

export interface ClipSearch {
  how: Packing;
  /** How many limits there are between all of a group's range and none; the larger half is tried. */
  grid: number;
  /** Where other ranks have other rows of the data: each then searches some rows of the weight. */
  share?: RowShare | null;
}

/** The search looks at so many rows of the input. */
const mostRows = 512;

/** So many numbers of a weight are searched at a time. */
const numbersAtATime = 2 ** 22;

/**
 * The weight with each group cut to the limit that loses least on the layer's output. Kept: the caller releases it.
 *
 * With d the change of a group's weights, the squared error on inputs x is dᵀ(xᵀx)d: xᵀx is made once, where mlx-lm
 * makes all outputs for each limit.
 */
export async function searchClip(layer: Packable, { x }: Captured, search: ClipSearch): Promise<Tensor> {
  const { weight } = layer;
  const K = weight.dim(-1);
  const { share } = search;
  const products = mx.keep(mx.scope(() => inputProducts(x.reshape(-1, K), search)));
  const all = mx.keep(mx.scope(() => weight.reshape(-1, K)));
  const parts: Tensor[] = [];
  try {
    mx.eval(products);
    const [start, end] = share ? share.part(all.dim(0)) : [0, all.dim(0)];
    const rowsAtATime = Math.max(1, Math.floor(numbersAtATime / K));
    for (let row = start; row < end; row += rowsAtATime) {
      const rows = mx.slice(row, Math.min(row + rowsAtATime, end));
      const part = mx.keep(mx.scope(() => clipRows(all.at(rows), products, search)));
      parts.push(part);
      mx.eval(part);
      await breathe();
    }
    const whole = () => (share ? share.gather(all.dim(0), parts, all) : mx.concatenate(parts));
    const clipped = mx.keep(mx.scope(() => whole().reshape(weight.shape)));
    mx.eval(clipped);
    return clipped;
  } finally {
    mx.release([products, all, parts]);
  }
}

/** xᵀx of each group's inputs, by row: of `mostRows` of all ranks' rows at most. x (rows, K) → (K / group, group, group) */
function inputProducts(x: Tensor, { how: { groupSize }, share }: ClipSearch): Tensor {
  const count = x.dim(0);
  // How many rows come before these, and how many there are.
  const perSample = share ? count / (share.end - share.first) : 0;
  const [before, total] = share ? [share.first * perSample, share.total * perSample] : [0, count];
  const stride = Math.ceil(total / mostRows);
  const first = (stride - (before % stride)) % stride;
  const rows = x.at(mx.slice(first, null, stride)).astype("float32");
  const groups = rows.reshape(rows.dim(0), -1, groupSize).transpose(1, 0, 2);
  const products = groups
    .transpose(0, 2, 1)
    .matmul(groups)
    .divide(Math.ceil(total / stride));
  return share ? share.sum(products) : products;
}

/** w (N, K), products (K / group, group, group) → (N, K) */
function clipRows(w: Tensor, products: Tensor, { how, grid }: ClipSearch): Tensor {
  const groups = w.reshape(w.dim(0), -1, how.groupSize);
  const range = groups.abs().max({ axis: -1, keepdims: true });
  let best = range;
  let least: Tensor | null = null;
  for (let step = 0; step < Math.floor(grid / 2); step++) {
    const limit = range.multiply(1 - step / grid);
    const clipped = mx.clip(groups, limit.negative(), limit);
    const packed = rounded(clipped.reshape(w.shape), how).reshape(groups.shape);
    const d = packed.astype("float32").subtract(groups.astype("float32")).transpose(1, 0, 2);
    const error = d.matmul(products).multiply(d).sum({ axis: -1 }).T.expandDims(-1);
    if (least) {
      const better = error.less(least);
      best = mx.where(better, limit, best);
      least = mx.where(better, error, least);
    } else [best, least] = [limit, error];
    // One limit's tensors at a time.
    mx.eval(best, least);
  }
  return mx.clip(groups, best.negative(), best).reshape(w.shape);
}
