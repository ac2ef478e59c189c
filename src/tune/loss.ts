/** The loss of fine-tuning: cross entropy of the next token, on the tokens that count. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { type LanguageModel, splitAtHead } from "../models";
import { crossEntropy } from "../nn";
import { ownRows, sumOverRanks } from "./across-ranks";
import { headLosses } from "./head-losses";
import { packedCaches } from "./packing";
import { type DeviceBatch, type TokenBatch, toDevice } from "./token-batch";

/**
 * The mean loss of a batch, float32, and how many tokens it is the mean of, int32.
 * @param differentiated whether gradients are traced
 */
export function defaultLoss(
  model: LanguageModel,
  { inputs, targets, counted, packing }: DeviceBatch,
  { differentiated = false } = {},
): [loss: Tensor, count: Tensor] {
  const options = packing ? { cache: packedCaches(model, packing) } : undefined;
  const split = splitAtHead(model);
  const losses = split
    ? headLosses(split, split.hidden(inputs, options), targets, { differentiated })
    : crossEntropy(model.forward(inputs, options), targets);
  const count = counted.sum();
  return [losses.multiply(counted).astype("float32").sum().divide(count), count];
}

/** The mean loss over batches, by token; NaN where there are none. `afterBatch` is awaited after each; each rank of `group` takes some rows. */
export async function evaluateLoss(
  model: LanguageModel,
  batches: Iterable<TokenBatch>,
  afterBatch?: () => unknown,
  group: mx.distributed.Group | null = null,
): Promise<number> {
  let total = 0;
  let tokens = 0;
  for (const batch of batches) {
    const results = mx.scope(() => defaultLoss(model, toDevice(ownRows(batch, group), model.vocabSize)));
    mx.eval(results);
    const [loss, count] = results.map((tensor) => tensor.item()) as [number, number];
    for (const tensor of results) tensor.dispose();
    mx.clearCache();
    total += count === 0 ? 0 : loss * count;
    tokens += count;
    await afterBatch?.();
  }
  const [loss, count] = sumOverRanks([total, tokens], group) as [number, number];
  return loss / count;
}
