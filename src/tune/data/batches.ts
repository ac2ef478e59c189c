/** Batches of samples in random order, padded. */
import { ExitCode, UserError } from "../../errors";
import type { TokenBatch } from "../loss";
import { permutation, seed as startAnew } from "./shuffle";

export interface Sample {
  tokens: readonly number[];
  /** How many tokens at the begin have no loss. */
  offset: number;
}

export interface Dataset {
  readonly length: number;
  at(index: number): Sample;
}

export interface BatchesOptions {
  batchSize: number;
  /** Longer samples are cut. */
  maxSeqLength: number;
  /** Go on with another order when all were used. */
  loop?: boolean;
  /** Start the generator of orders anew; else it goes on. */
  seed?: number;
  /** Called with the length of a sample that is cut. */
  onCut?: (length: number) => void;
}

/** Lengths of batches are one more than a multiple of this. */
const padding = 32;

/**
 * Batches of neighbours in the dataset; those left over at its end are never used. The first order is drawn with the
 * first batch.
 * @throws UserError where there are fewer samples than a batch has
 */
export function* iterateBatches(dataset: Dataset, options: BatchesOptions): Generator<TokenBatch> {
  const { batchSize, loop = false, seed } = options;
  const count = Math.floor(dataset.length / batchSize);
  if (count === 0) {
    throw new UserError(`the dataset has ${dataset.length} samples, fewer than a batch of ${batchSize}`, {
      code: ExitCode.usage,
      hint: `Take smaller batches: --batch-size ${Math.max(1, dataset.length)}`,
    });
  }
  if (seed !== undefined) startAnew(seed);
  do {
    for (const index of permutation(count)) {
      yield padded(
        Array.from({ length: batchSize }, (_, row) => dataset.at(index * batchSize + row)),
        options,
      );
    }
  } while (loop);
}

function padded(samples: readonly Sample[], { maxSeqLength, onCut }: BatchesOptions): TokenBatch {
  const longest = Math.max(...samples.map(({ tokens }) => tokens.length));
  if (longest > maxSeqLength) onCut?.(longest);
  const length = Math.min(1 + padding * Math.ceil(longest / padding), maxSeqLength);
  const tokens = new Int32Array(samples.length * length);
  const lengths = new Int32Array(samples.length * 2);
  samples.forEach((sample, row) => {
    const kept = sample.tokens.slice(0, maxSeqLength);
    tokens.set(kept, row * length);
    lengths.set([sample.offset, kept.length], row * 2);
  });
  return { tokens, shape: [samples.length, length], lengths };
}
