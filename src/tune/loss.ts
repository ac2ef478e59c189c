/** The loss of fine-tuning: cross entropy of the next token, on the tokens that count. */
import { UserError } from "../errors";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { crossEntropy } from "../nn";
import { ownRows, sumOverRanks } from "./across-ranks";

/** Rows of token ids, padded with zeros. */
export interface TokenBatch {
  /** (B, T) in row-major order */
  readonly tokens: Int32Array;
  readonly shape: readonly [rows: number, length: number];
  /** (B, 2): how many tokens at a row's begin have no loss, and how many tokens it has. */
  readonly lengths: Int32Array;
  /** Where a row comes from, for a person. */
  readonly where?: (row: number) => string;
}

/** A batch on the device. */
export interface DeviceBatch {
  /** (B, T), int32 */
  tokens: Tensor;
  /** (B, 2), int32 */
  lengths: Tensor;
}

/** @throws UserError for a token id that the model has no embedding for: MLX would read foreign memory */
export function toDevice({ tokens, shape, lengths }: TokenBatch, vocabSize: number): DeviceBatch {
  const stray = tokens.find((id) => id < 0 || id >= vocabSize);
  if (stray !== undefined) {
    throw new UserError(`the data has token id ${stray}, but the model has ${vocabSize} tokens`, {
      hint: "The tokenizer does not belong to this model, or the model was made without its added tokens.",
    });
  }
  return {
    tokens: mx.array(tokens, "int32", [...shape]),
    lengths: mx.array(lengths, "int32", [shape[0], 2]),
  };
}

/**
 * The mean loss of a batch, float32, and how many tokens it is the mean of, int32. As in mlx-lm, the token behind a row's
 * last counts where there is padding.
 */
export function defaultLoss(model: LanguageModel, { tokens, lengths }: DeviceBatch): [loss: Tensor, count: Tensor] {
  const all = mx.slice();
  const inputs = tokens.at(all, mx.slice(0, -1));
  const targets = tokens.at(all, mx.slice(1));
  const steps = mx.arange(1, targets.dim(1) + 1);
  const begun = steps.greaterEqual(lengths.at(all, mx.slice(0, 1)));
  const mask = begun.logicalAnd(steps.lessEqual(lengths.at(all, mx.slice(1, 2))));
  const losses = crossEntropy(model.forward(inputs), targets).multiply(mask);
  const count = mask.sum();
  return [losses.astype("float32").sum().divide(count), count];
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
