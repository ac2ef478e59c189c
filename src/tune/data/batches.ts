/** Batches of samples in random order, padded. */
import { counted } from "../../counted";
import { ExitCode, UserError } from "../../errors";
import type { NumpyRandom } from "../../mersenne";
import type { TokenBatch } from "../token-batch";

export interface Sample {
  tokens: Int32Array;
  /** How many tokens at the begin have no loss. */
  offset: number;
}

export interface Dataset {
  readonly length: number;
  at(index: number): Sample;
  /** Where a sample comes from, for a person. */
  where(index: number): string;
}

export interface BatchesOptions {
  batchSize: number;
  /** Longer samples are cut. */
  maxSeqLength: number;
  /** Draws the orders: one generator for all sets of a run, as NumPy's global one is. */
  random: NumpyRandom;
  /** Go on with another order when all were used. */
  loop?: boolean;
}

/** Lengths of batches are one more than a multiple of this. */
const padding = 32;

/**
 * Batches of neighbours in the dataset; those left over at its end are never used. The first order is drawn with the
 * first batch.
 * @throws UserError where there are fewer samples than a batch has
 */
export function* iterateBatches(dataset: Dataset, options: BatchesOptions): Generator<TokenBatch> {
  const { batchSize, maxSeqLength, random, loop = false } = options;
  const count = Math.floor(dataset.length / batchSize);
  if (count === 0) {
    throw new UserError(`the dataset has ${counted(dataset.length, "sample")}, fewer than a batch of ${batchSize}`, {
      code: ExitCode.usage,
      hint: `Take smaller batches: --batch-size ${Math.max(1, dataset.length)}. Or more data.`,
    });
  }
  do {
    for (const index of random.permutation(count)) {
      const indices = Array.from({ length: batchSize }, (_, row) => index * batchSize + row);
      const batch = padded(
        indices.map((i) => dataset.at(i)),
        maxSeqLength,
      );
      yield { ...batch, where: (row) => dataset.where(indices[row]!) };
    }
  } while (loop);
}

/** How many columns a batch has whose longest sample has so many tokens. */
export const paddedLength = (longest: number, maxSeqLength: number): number =>
  Math.min(1 + padding * Math.ceil(longest / padding), maxSeqLength);

function padded(samples: readonly Sample[], maxSeqLength: number): TokenBatch {
  const longest = Math.max(...samples.map(({ tokens }) => tokens.length));
  const length = paddedLength(longest, maxSeqLength);
  const tokens = new Int32Array(samples.length * length);
  const lengths = new Int32Array(samples.length * 2);
  samples.forEach((sample, row) => {
    const kept = sample.tokens.subarray(0, maxSeqLength);
    tokens.set(kept, row * length);
    lengths.set([sample.offset, kept.length], row * 2);
  });
  return { tokens, shape: [samples.length, length], lengths };
}
