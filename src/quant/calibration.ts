/**
 * Calibration data: rows of tokens on which a quantizer measures what a model loses. As mlx-lm's where no data is named:
 * its text, cut into rows, the rows in random order.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { openDataset, splitNamed } from "../data/dataset";
import { formatOf } from "../data/row-files";
import type { Rows } from "../data/rows";
import { ExitCode, UserError } from "../errors";
import { rowTokens } from "../evaluate/row-tokens";
import { neededHome } from "../home";
import { isOffline } from "../hub/environment";
import { inputText } from "../input-file";
import { breathe } from "../macrotask";
import * as mx from "../mlx";
import type { Tokenizer } from "../text/tokenizer";
import { downloadText, referenceTextUrl } from "./reference-text";
import { checkStopped } from "./stopped";

export interface CalibrationOptions {
  /** How many rows; -1: all that the data gives. */
  numSamples: number;
  /** Tokens in a row. */
  sequenceLength: number;
  /** Token ids that the model has: a larger one would read foreign memory. */
  vocabSize: number;
  /** A file, a folder or a dataset of the hub; mlx-lm's calibration text unless given. */
  dataPath?: string;
  /** Of a download, in bytes. */
  onProgress?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

export interface Calibration {
  /** Rows of `sequenceLength` token ids, in random order. */
  rows: number[][];
  /**
   * Rows of other text, for the closing report: a validation split's, or the data's end. There may be none. No random
   * number chooses them, so that quantizers of different kinds are measured on the same text.
   */
  heldOut: number[][];
  /** Rows from the data's start, for a report where nothing is held out. */
  first: number[][];
}

/** Enough for the closing report. */
const mostHeldOut = 32;

/** Where mlx-lm keeps its calibration text. */
export function referenceTextPath(): string {
  return join(neededHome(), ".cache/mlx-lm/calibration_v5.txt");
}

/** Whether there is data without a download. */
export function hasCalibrationData(dataPath?: string): boolean {
  return dataPath !== undefined || existsSync(referenceTextPath());
}

/**
 * Draws rows with MLX's random numbers: seed them before.
 * @throws UserError where there is no data, it is of no known kind, or it gives no whole row
 */
export async function loadCalibration(tokenizer: Tokenizer, options: CalibrationOptions): Promise<Calibration> {
  const { dataPath } = options;
  const isText = dataPath === undefined || formatOf(dataPath) === "txt";
  const calibration = await (isText ? fromText(tokenizer, options) : fromDataset(tokenizer, dataPath, options));
  if (calibration.rows.length === 0) {
    throw new UserError(`the calibration data has fewer tokens than one row of ${options.sequenceLength}`, {
      code: ExitCode.usage,
      hint: "Name more text: --data-path FILE, FOLDER or REPO",
    });
  }
  const ids = [calibration.rows, calibration.heldOut, calibration.first].flat(2);
  const stray = ids.find((id) => id >= options.vocabSize);
  if (stray !== undefined) {
    throw new UserError(`the tokenizer gives token id ${stray}, but the model has ${options.vocabSize} tokens`, {
      hint: "Check that tokenizer.json and the weights belong together.",
    });
  }
  return calibration;
}

/** The whole text at once, as mlx-lm cuts it. */
async function fromText(tokenizer: Tokenizer, options: CalibrationOptions): Promise<Calibration> {
  const path = options.dataPath ?? (await referenceText(options));
  const given = await inputText(path);
  if (given === null) {
    throw new UserError(`there is no file ${path}`, { code: ExitCode.notFound, hint: "Check --data-path." });
  }
  const text = given.replaceAll("\r\n", "\n");
  const rows = cut(await tokenizer.encode(text), options.sequenceLength);
  if (rows.length === 0) return { rows, heldOut: [], first: [] };
  const order = randomOrder(rows.length);
  const count = options.numSamples > 0 ? options.numSamples : rows.length;
  const left = order.slice(count).sort((a, b) => a - b);
  const taken = (indices: readonly number[]) => indices.map((index) => rows[index]!);
  return {
    rows: taken(order.slice(0, count)),
    heldOut: taken(left.slice(-mostHeldOut)),
    first: rows.slice(0, mostHeldOut),
  };
}

/** The path of mlx-lm's text, downloaded once. */
async function referenceText({ onProgress, signal }: CalibrationOptions): Promise<string> {
  const path = referenceTextPath();
  if (existsSync(path)) return path;
  if (isOffline()) {
    throw new UserError(`mlx-lm's calibration text is not at ${path}, and the network is not to be used`, {
      code: ExitCode.notFound,
      hint: "Name other text: --data-path FILE, FOLDER or REPO. Or unset HF_HUB_OFFLINE to download it.",
    });
  }
  await downloadText(referenceTextUrl, path, { onProgress, signal });
  return path;
}

/** Of texts without a validation split, this share is held out: the last ones. */
const heldOutShare = 0.1;

/** Texts in random order, laid end to end, until there are rows enough. */
async function fromDataset(tokenizer: Tokenizer, path: string, options: CalibrationOptions): Promise<Calibration> {
  const { numSamples, onProgress, signal } = options;
  const splits = await openDataset(path, { onProgress, signal });
  const validation = splits.get("validation") ?? splits.get("test");
  const train = splitNamed(splits, "train", path);
  const wanted = numSamples > 0 ? numSamples : Number.POSITIVE_INFINITY;
  const read = (data: Rows, order: readonly number[], most: number) => rowsOf(data, order, tokenizer, most, options);

  const spared = validation ? 0 : Math.floor(train.length * heldOutShare);
  const end = await read(train, upTo(train.length).slice(train.length - spared), mostHeldOut);
  const heldOut = validation ? await read(validation, upTo(validation.length), mostHeldOut) : end;
  // Where the end does not make a row, it is calibration data as well.
  const count = train.length - (end.length > 0 ? spared : 0);
  const rows = count > 0 ? await read(train, randomOrder(count), wanted) : [];
  const first = heldOut.length > 0 ? [] : await read(train, upTo(train.length), mostHeldOut);
  return { rows, heldOut, first };
}

const upTo = (count: number) => Array.from({ length: count }, (_, index) => index);

async function rowsOf(
  data: Rows,
  order: readonly number[],
  tokenizer: Tokenizer,
  wanted: number,
  { sequenceLength, signal }: CalibrationOptions,
): Promise<number[][]> {
  if (order.length === 0) return [];
  const tokensAt = rowTokens(data, tokenizer);
  const tokens: number[] = [];
  for (const index of order) {
    if (tokens.length >= wanted * sequenceLength) break;
    checkStopped(signal);
    for (const token of await tokensAt(index)) tokens.push(token);
    await breathe();
  }
  return cut(tokens, sequenceLength).slice(0, wanted);
}

const randomOrder = (count: number) => mx.scope(() => mx.random.permutation(count).toList() as number[]);

/** Whole rows; the rest is dropped. */
function cut(tokens: readonly number[], length: number): number[][] {
  return Array.from({ length: Math.floor(tokens.length / length) }, (_, i) =>
    tokens.slice(i * length, (i + 1) * length),
  );
}
