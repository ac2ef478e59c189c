/** Losses. */

import type { Tensor } from "../mlx";
import * as mx from "../mlx";

export interface CrossEntropy {
  /** A factor for each target, in the shape of the loss. */
  weights?: Tensor;
  axis?: number;
  /** How much of the probability is spread over all classes, in [0, 1). */
  labelSmoothing?: number;
  reduction?: "none" | "mean" | "sum";
}

/**
 * −log softmax(logits)[target] along `axis`. Targets are class indices (the logits' shape without the axis) or
 * probabilities (the logits' shape). @throws RangeError where the shapes don't fit or `labelSmoothing` is out of range
 */
export function crossEntropy(logits: Tensor, targets: Tensor, options: CrossEntropy = {}): Tensor {
  const { weights, axis = -1, labelSmoothing = 0, reduction = "none" } = options;
  if (!(labelSmoothing >= 0 && labelSmoothing < 1)) {
    throw new RangeError(`labelSmoothing must lie in [0, 1), not ${labelSmoothing}`);
  }
  const probabilities = targets.ndim === logits.ndim;
  const expected = probabilities ? logits.shape : logits.shape.toSpliced(axis < 0 ? axis + logits.ndim : axis, 1);
  if (targets.shape.join() !== expected.join()) {
    throw new RangeError(`targets (${targets.shape.join(", ")}) do not fit logits (${logits.shape.join(", ")})`);
  }
  const last = axis === -1 || axis === logits.ndim - 1;
  const isPlain = !probabilities && labelSmoothing === 0 && last;
  const whole = isPlain ? mx.fast.crossEntropy(logits, targets) : null;
  let loss = whole ?? negativeLogLikelihood(logits, targets, { probabilities, axis, labelSmoothing });

  if (weights) {
    if (weights.shape.join() !== loss.shape.join()) {
      throw new RangeError(`weights (${weights.shape.join(", ")}) do not fit the loss (${loss.shape.join(", ")})`);
    }
    loss = loss.multiply(weights);
  }
  return reduction === "mean" ? loss.mean() : reduction === "sum" ? loss.sum() : loss;
}

function negativeLogLikelihood(
  logits: Tensor,
  targets: Tensor,
  { probabilities, axis, labelSmoothing }: { probabilities: boolean; axis: number; labelSmoothing: number },
): Tensor {
  // Shifted by the maximum, or the normalizer would round away beside large logits.
  const shifted = logits.subtract(mx.stopGradient(logits.max({ axis, keepdims: true })));
  const score = probabilities
    ? shifted.multiply(targets).sum({ axis })
    : shifted.takeAlongAxis(targets.expandDims(axis), axis).squeeze(axis);
  const normalizer = shifted.logsumexp({ axis });
  if (labelSmoothing === 0) return normalizer.subtract(score);
  const smoothed = shifted.mean({ axis }).negative().multiply(labelSmoothing);
  return normalizer.subtract(score.multiply(1 - labelSmoothing)).add(smoothed);
}
