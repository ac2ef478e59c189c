/** What is known of a dataset before a model sees it: how many tokens its samples have, and what is cut off. */
import type { Dataset } from "./batches";

export type DatasetFacts = {
  rows: number;
  tokens: number;
  shortest: number;
  median: number;
  longest: number;
  /** Samples that are longer than the settings allow, and their tokens beyond. */
  truncated: number;
  tokens_cut: number;
  /** Samples of which no token has a loss: their prompts alone are too long. */
  without_loss: number;
  /** Samples by length: those up to so many tokens, and longer than the bin before allows. */
  histogram: { up_to: number; rows: number }[];
};

/** The upper end of the first bin; each next one's is twice as far. */
const firstBin = 32;

export function datasetFacts(dataset: Dataset, maxSeqLength: number): DatasetFacts {
  const lengths = new Int32Array(dataset.length);
  let withoutLoss = 0;
  for (let i = 0; i < dataset.length; i++) {
    const { tokens, offset } = dataset.at(i);
    lengths[i] = tokens.length;
    if (offset >= Math.min(tokens.length, maxSeqLength) && offset > 0) withoutLoss += 1;
  }
  lengths.sort();
  const longer = lengths.filter((length) => length > maxSeqLength);
  const longest = lengths.at(-1) ?? 0;
  const histogram: DatasetFacts["histogram"] = [];
  for (let end = firstBin, counted = 0; counted < lengths.length; end *= 2) {
    const upTo = lengths.findIndex((length) => length > end);
    const reached = upTo < 0 ? lengths.length : upTo;
    if (reached > 0) histogram.push({ up_to: end, rows: reached - counted });
    counted = reached;
  }
  return {
    rows: lengths.length,
    tokens: lengths.reduce((sum, length) => sum + length, 0),
    shortest: lengths[0] ?? 0,
    median: lengths[lengths.length >> 1] ?? 0,
    longest,
    truncated: longer.length,
    tokens_cut: longer.reduce((sum, length) => sum + length - maxSeqLength, 0),
    without_loss: withoutLoss,
    histogram,
  };
}
