/** Samples side by side in rows of one length, without padding. */
import { counted } from "../../counted";
import { ExitCode, UserError } from "../../errors";
import type { Placed, TokenBatch } from "../token-batch";
import type { BatchesOptions, Dataset } from "./batches";
import { paddedLength } from "./batches";

/** Numbers of the samples in a row, in their order there. */
export type PackedRow = readonly number[];

/** How much of what a model reads is no padding. */
export type PackingFacts = {
  samples: number;
  rows: number;
  /** Tokens of samples, as far as the settings allow. */
  tokens: number;
  /** The share of the rows that they fill. */
  filled: number;
  /** The share that they would fill of padded batches. */
  filled_by_padding: number;
};

/**
 * Which samples are in a row together: the longest first, each to the row where it leaves the least room (best fit
 * decreasing; Johnson et al. 1974, doi:10.1137/0203025).
 */
export function packRows(lengths: readonly number[], rowLength: number): PackedRow[] {
  const order = lengths.map((_, i) => i).sort((a, b) => lengths[b]! - lengths[a]! || a - b);
  const rows: number[][] = [];
  /** Rows by how much room they have. */
  const byRoom: number[][] = Array.from({ length: rowLength + 1 }, () => []);
  for (const sample of order) {
    const length = lengths[sample]!;
    let room = length;
    while (room <= rowLength && byRoom[room]!.length === 0) room++;
    const row = room <= rowLength ? byRoom[room]!.pop()! : rows.push([]) - 1;
    rows[row]!.push(sample);
    byRoom[Math.min(room, rowLength) - length]!.push(row);
  }
  return rows;
}

const keptLengths = (dataset: Dataset, most: number) =>
  Array.from({ length: dataset.length }, (_, i) => Math.min(most, dataset.at(i).tokens.length));

/** What packing is worth for a dataset. */
export function packingFacts(
  dataset: Dataset,
  { batchSize, maxSeqLength }: Omit<BatchesOptions, "random">,
): PackingFacts {
  const lengths = keptLengths(dataset, maxSeqLength);
  const tokens = lengths.reduce((sum, length) => sum + length, 0);
  const rows = packRows(lengths, maxSeqLength).length;
  let padded = 0;
  let inPadded = 0;
  for (let i = 0; i + batchSize <= lengths.length; i += batchSize) {
    const batch = lengths.slice(i, i + batchSize);
    padded += batchSize * paddedLength(Math.max(...batch), maxSeqLength);
    inPadded += batch.reduce((sum, length) => sum + length, 0);
  }
  const filled_by_padding = padded === 0 ? 1 : inPadded / padded;
  return { samples: lengths.length, rows, tokens, filled: tokens / (rows * maxSeqLength), filled_by_padding };
}

/**
 * Batches without end of packed rows in random order; no row is left out.
 * @throws UserError where there are fewer rows than a batch has
 */
export function* iteratePacked(dataset: Dataset, options: BatchesOptions): Generator<TokenBatch> {
  const { batchSize, maxSeqLength, random } = options;
  const rows = packRows(keptLengths(dataset, maxSeqLength), maxSeqLength);
  if (rows.length < batchSize) {
    const size = `${counted(dataset.length, "sample")} in ${counted(rows.length, "packed row")}`;
    throw new UserError(`the dataset has ${size}, fewer than a batch of ${batchSize}`, {
      code: ExitCode.usage,
      hint: `Take smaller batches: --batch-size ${Math.max(1, rows.length)}. Or more data.`,
    });
  }
  let waiting: number[] = [];
  for (;;) {
    while (waiting.length < batchSize) waiting = [...waiting, ...random.permutation(rows.length)];
    const chosen = waiting.slice(0, batchSize).map((row) => rows[row]!);
    waiting = waiting.slice(batchSize);
    yield { ...packed(dataset, chosen, maxSeqLength), where: (row) => placesOf(dataset, chosen[row]!) };
  }
}

/** Where the samples of a row come from, for a person. */
function placesOf(dataset: Dataset, row: PackedRow): string {
  const shown = row.slice(0, 3).map((sample) => dataset.where(sample));
  return row.length > 3 ? `${shown.join(", ")} and ${row.length - 3} more` : shown.join(", ");
}

function packed(dataset: Dataset, rows: readonly PackedRow[], length: number): TokenBatch {
  const tokens = new Int32Array(rows.length * length);
  const lengths = new Int32Array(rows.length * 2);
  const samples = rows.map((row, i) => {
    let start = 0;
    const placed = row.map((number): Placed => {
      const sample = dataset.at(number);
      const kept = sample.tokens.subarray(0, length);
      tokens.set(kept, i * length + start);
      const place = { start, length: kept.length, offset: sample.offset };
      start += kept.length;
      return place;
    });
    lengths.set([0, start], i * 2);
    return placed;
  });
  return { tokens, shape: [rows.length, length], lengths, samples };
}
