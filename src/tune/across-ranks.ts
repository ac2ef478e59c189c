/** Training on several processes: each takes some rows of every batch, and all take the same step. */
import { ExitCode, UserError } from "../errors";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { isLaunched } from "../mlx/group-environment";
import type { TokenBatch } from "./token-batch";

/**
 * The processes of this training; null where there is this one only.
 * @throws UserError where a batch has fewer rows than there are processes
 */
export function trainingGroup(batchSize: number): mx.distributed.Group | null {
  if (!isLaunched()) return null;
  const group = mx.distributed.init({ strict: true });
  if (batchSize < group.size) {
    throw new UserError(`a batch of ${batchSize} has no row for each of ${group.size} ranks`, {
      code: ExitCode.usage,
      hint: `Take larger batches: --batch-size ${group.size}. Or fewer ranks.`,
    });
  }
  return group.size > 1 ? group : null;
}

/** The rows of a batch that this rank takes: every `size`-th, padded as the whole batch is. */
export function ownRows(batch: TokenBatch, group: mx.distributed.Group | null): TokenBatch {
  if (!group) return batch;
  const { tokens, shape, lengths, samples, where } = batch;
  const [rows, length] = shape;
  const own = Array.from({ length: rows }, (_, row) => row).filter((row) => row % group.size === group.rank);
  return {
    tokens: Int32Array.from(own.flatMap((row) => [...tokens.subarray(row * length, (row + 1) * length)])),
    shape: [own.length, length],
    lengths: Int32Array.from(own.flatMap((row) => [lengths[2 * row]!, lengths[2 * row + 1]!])),
    samples: samples && own.map((row) => samples[row]!),
    where: where && ((row) => where(own[row]!)),
  };
}

/** Of a step: its loss, how many tokens that is the mean of, and gradients in the order of the parameters, or of all as a row. */
export interface Outcome {
  loss: Tensor;
  count: Tensor;
  gradients: Tensor[];
}

/**
 * Loss and gradients as of all ranks' rows together: means by token, not by rank. All of them lie side by side, so that they are
 * weighted, summed and divided by one operation each: a GPU waits for the host where each of hundreds has its own.
 */
export function meanOverRanks({ loss, count, gradients }: Outcome, group: mx.distributed.Group | null): Outcome {
  if (!group) return { loss, count, gradients };
  const weight = count.astype("float32");
  const own = mx.concatenate([...[...gradients, loss].map((x) => x.astype("float32").flatten()), mx.array([1])]);
  // A rank without a token that counts has a loss of 0 / 0.
  const weighted = mx.where(weight.greater(0), own.multiply(weight), 0);
  const sums = mx.distributed.allSum(weighted, { group });
  const total = sums.at(-1);
  let end = 0;
  const ends = gradients.map(({ size }) => (end += size));
  const means = sums.divide(total).split([...ends, end + 1]);
  return {
    loss: means[gradients.length]!.squeeze().astype(loss.dtype),
    count: total.astype(count.dtype),
    gradients: gradients.map(({ shape, dtype }, i) => means[i]!.reshape(...shape).astype(dtype)),
  };
}

/** Sums of some numbers over the ranks. */
export function sumOverRanks(numbers: readonly number[], group: mx.distributed.Group | null): number[] {
  if (!group) return [...numbers];
  return mx.scope(() => [...mx.distributed.allSum(mx.array([...numbers], "float32"), { group }).toArray()].map(Number));
}

/** Whether any rank is asked to end: all of them end after the same step. */
export function anyAborted(signal: AbortSignal | undefined, group: mx.distributed.Group | null): boolean {
  const own = signal?.aborted === true;
  if (!group) return own;
  return mx.scope(() => mx.distributed.allMax(mx.array([own ? 1 : 0], "int32"), { group }).item()) === 1;
}
