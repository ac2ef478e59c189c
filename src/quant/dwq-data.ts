/** The samples that DWQ learns from, and those that it is judged by: drawn from a dataset as mlx-lm draws them. */
import { counted } from "../counted";
import { openDataset, splitNamed } from "../data/dataset";
import { ExitCode, UserError } from "../errors";
import { breathe } from "../macrotask";
import { NumpyRandom } from "../mersenne";
import type { Tokenizer } from "../text/tokenizer";
import type { Dataset, Sample } from "../tune/data";
import { encoderFor, usualFeatures } from "../tune/data/encoder";
import { checkStopped } from "./stopped";

export interface DwqDataOptions {
  /** A file, a folder or a dataset of the hub, whose split `train` is taken. */
  dataPath: string;
  numSamples: number;
  batchSize: number;
  maxSeqLength: number;
  seed: number;
  /** Token ids that the model has: a larger one would read foreign memory. */
  vocabSize: number;
  onDownload?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

export interface DwqData {
  /** Shortest samples first, so that those of a batch are about alike. */
  train: Dataset;
  valid: Dataset;
}

/** How many samples the loss is measured on. */
const validSamples = 32;

/** @throws UserError where there is no data, it cannot be read, or is too little */
export async function loadDwqData(tokenizer: Tokenizer, options: DwqDataOptions): Promise<DwqData> {
  const { dataPath, numSamples, batchSize, seed, onDownload, signal } = options;
  const rows = splitNamed(await openDataset(dataPath, { onProgress: onDownload, signal }), "train", dataPath);
  checkCount(rows.length, options);
  const order = new NumpyRandom(seed).permutation(rows.length);
  const encode = encoderFor(await rows.at(0), rows.where(0), tokenizer, { features: usualFeatures, masked: false });
  const read = async (indices: readonly number[]): Promise<Dataset> => {
    const samples: (Sample & { index: number })[] = [];
    for (const index of indices) {
      checkStopped(signal);
      const where = rows.where(index);
      const { tokens, offset } = await encode(await rows.at(index), where);
      checkTokens(tokens, where, options.vocabSize);
      samples.push({ tokens: Int32Array.from(tokens.slice(0, options.maxSeqLength)), offset, index });
      await breathe();
    }
    samples.sort((a, b) => a.tokens.length - b.tokens.length);
    return { length: samples.length, at: (i) => samples[i]!, where: (i) => rows.where(samples[i]!.index) };
  };
  const count = Math.min(numSamples, rows.length - batchSize);
  return { train: await read(order.slice(0, count)), valid: await read(order.slice(count, count + validSamples)) };
}

function checkCount(count: number, { dataPath, numSamples, batchSize }: DwqDataOptions): void {
  if (numSamples < batchSize) {
    throw new UserError(`${counted(numSamples, "sample")} cannot fill a batch of ${batchSize}`, {
      code: ExitCode.usage,
      hint: "Take more samples (--num-samples), or smaller batches (--batch-size).",
    });
  }
  if (count >= 2 * batchSize) return;
  throw new UserError(
    `${dataPath} has ${counted(count, "sample")}: a batch of ${batchSize} to learn from and another to judge by are the least`,
    {
      code: ExitCode.usage,
      hint: "Name more data (--data-path), or take smaller batches (--batch-size).",
    },
  );
}

function checkTokens(tokens: readonly number[], where: string, vocabSize: number): void {
  if (tokens.length < 2) {
    throw new UserError(`${where}: it has ${counted(tokens.length, "token")}, and nothing to predict`, {
      hint: "Leave empty samples out of the data.",
    });
  }
  const stray = tokens.find((id) => id >= vocabSize);
  if (stray === undefined) return;
  throw new UserError(`${where}: it has token id ${stray}, but the model has ${vocabSize} tokens`, {
    hint: "Check that tokenizer.json and the weights belong together.",
  });
}
