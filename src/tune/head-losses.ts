/**
 * Cross entropy of a model's head without all its logits at once. With a vocabulary of 128,000 tokens they and their
 * gradient are the largest arrays of a training step. Wijmans et al. 2024, arXiv:2411.09009.
 */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { SplitModel } from "../models";
import { crossEntropy } from "../nn";
import { trainableParameters } from "./linear-to-lora";

/** Bytes of logits that are in memory at a time. More keeps a GPU busier; a CPU's cache likes less. */
const mostBytes = () => (mx.defaultDevice() === "gpu" ? 256 << 20 : 32 << 20);

export interface HeadLossOptions {
  /** Whether gradients are traced: then those by the hidden states are made with the losses. */
  differentiated?: boolean;
  /** Bytes of logits at a time. */
  most?: number;
}

/**
 * −log softmax(head(hidden))[target] of each token: hidden (B, T, D), targets (B, T) → (B, T), in the logits' dtype. A part
 * of the rows at a time where the logits are large; the values are the same.
 */
export function headLosses(model: SplitModel, hidden: Tensor, targets: Tensor, options: HeadLossOptions = {}): Tensor {
  const { differentiated = false, most = mostBytes() } = options;
  const rows = targets.size;
  const atOnce = Math.max(1, Math.floor(most / (model.vocabSize * (hidden.nbytes / hidden.size))));
  const count = Math.ceil(rows / atOnce);
  if (count < 2) return crossEntropy(model.scores(hidden), targets);

  const flat = hidden.reshape(rows, hidden.dim(-1));
  const wanted = targets.flatten();
  const size = Math.ceil(rows / count);
  const parts = Array.from({ length: count }, (_, i) => mx.slice(i * size, Math.min(rows, (i + 1) * size)));
  const trained = headParameters(model);

  let losses: Tensor;
  if (!differentiated) losses = mx.concatenate(inTurn(flat, wanted, parts, lossOf(model)));
  else if (trained.length === 0) losses = withSlopes(model, flat, wanted, parts);
  else losses = computedAgain(model, flat, wanted, trained, parts);
  return losses.reshape(targets.shape);
}

const lossOf =
  (model: SplitModel) =>
  (part: Tensor, targets: Tensor): Tensor =>
    crossEntropy(model.scores(part), targets);

/** What is trained outside of the blocks: a head, an embedding that is the head, the last norm. */
function headParameters(model: SplitModel): [path: string, tensor: Tensor][] {
  const within = new Set(model.layers.flatMap((layer) => trainableParameters(layer).map(([, tensor]) => tensor)));
  return trainableParameters(model).filter(([, tensor]) => !within.has(tensor));
}

/** What `of` makes of each part of the rows and their targets. A part waits for the one before: MLX might compute all at once, else. */
function inTurn(
  flat: Tensor,
  wanted: Tensor,
  parts: readonly mx.Slice[],
  of: (part: Tensor, targets: Tensor, at: mx.Slice) => Tensor,
  /** What the first part waits for. */
  before: Tensor[] = [],
): Tensor[] {
  const results: Tensor[] = [];
  for (const at of parts) {
    // The targets wait as well: the gradient begins with an array as large as the logits that is made of them alone.
    const [part, targets] = mx.depends(
      [flat.at(at), wanted.at(at)],
      results.length > 0 ? results.slice(-1) : before,
    ) as [Tensor, Tensor];
    results.push(of(part, targets, at));
  }
  return results;
}

/** The tensor, which is ready only when the others are. */
const after = (tensor: Tensor, others: readonly Tensor[]): Tensor => mx.depends([tensor], others)[0]!;

/** Losses whose gradient by the rows is made while the logits are there: the backward pass only scales it. */
function withSlopes(model: SplitModel, flat: Tensor, wanted: Tensor, parts: readonly mx.Slice[]): Tensor {
  const both = mx.customFunction(
    (rows, wanted) => {
      const losses: Tensor[] = [];
      const slopes = inTurn(rows!, wanted!, parts, (part, targets) => {
        const [[, loss], slope] = mx.valueAndGrad((part: Tensor): [Tensor, Tensor] => {
          const loss = lossOf(model)(part, targets);
          return [loss.sum(), loss];
        })(part) as [[Tensor, Tensor], Tensor];
        losses.push(loss);
        return after(slope, [loss]);
      });
      return [mx.concatenate(losses), mx.concatenate(slopes)];
    },
    {
      vjp: ([rows, wanted], [cotangent], [, slopes]) => [
        slopes!.multiply(cotangent!.expandDims(-1).astype(slopes!.dtype)).astype(rows!.dtype),
        mx.zerosLike(wanted!),
      ],
    },
  );
  return both(flat, wanted)[0]!;
}

/** Losses of a head that is trained itself: its gradient needs the rows' weights, so the backward pass computes the logits again. */
function computedAgain(
  model: SplitModel,
  flat: Tensor,
  wanted: Tensor,
  trained: readonly [path: string, tensor: Tensor][],
  parts: readonly mx.Slice[],
): Tensor {
  const using = <R>(parameters: readonly Tensor[], run: () => R): R => {
    const current = new Map(trainableParameters(model));
    const before = trained.map(([path]): [string, Tensor] => [path, current.get(path)!]);
    model.update(trained.map(([path], i) => [path, parameters[i]!]));
    try {
      return run();
    } finally {
      model.update(before);
    }
  };
  const losses = mx.customFunction(
    (rows, wanted, ...parameters) =>
      using(parameters, () => [mx.concatenate(inTurn(rows!, wanted!, parts, lossOf(model)))]),
    {
      vjp([rows, wanted, ...parameters], [cotangent]) {
        let sums: Tensor[] = [];
        const slopeOf = (part: Tensor, targets: Tensor, at: mx.Slice) => {
          const [, [slope, ...more]] = mx.vjp(
            (part, ...parameters) => using(parameters, () => lossOf(model)(part, targets)),
            [part, ...parameters],
            [cotangent!.at(at)],
          );
          sums = more.map((x, i) => (sums[i] ? sums[i].add(x) : x));
          return after(slope!, sums);
        };
        // Not the operations of the forward pass again: a compiled function would keep what those made.
        const slopes = inTurn(rows!, wanted!, parts, slopeOf, [cotangent!]);
        return [mx.concatenate(slopes), mx.zerosLike(wanted!), ...sums];
      },
    },
  );
  return losses(flat, wanted, ...trained.map(([, tensor]) => tensor))[0]!;
}
