/** How much of a model quantization took: perplexity and divergence from the original, beside bits and bytes. */
import { existsSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { openWeights } from "../convert/load";
import { bitsPerWeight } from "../convert/quantize-model";
import { readConfig } from "../convert/source";
import { breathe } from "../macrotask";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { crossEntropy, isQuantizable, type QuantizationConfig, quantize } from "../nn";
import { systemError } from "../system-errors";
import { klDivergence } from "./kl-divergence";
import { checkStopped } from "./stopped";

/** A model of the report. */
export interface Quality {
  name: string;
  perplexity: number;
  /** Mean KL(original ‖ this) of a token, in nats. */
  kl_divergence: number;
  bits_per_weight: number;
  /** Bytes of the weights. */
  size: number;
}

export interface QualityReport {
  /** Whether the text is other than what the model was quantized with. */
  held_out: boolean;
  rows: number;
  tokens: number;
  /** The original first. */
  models: Quality[];
}

export interface ReportOptions {
  /** Folder of the original. */
  source: string;
  /** Folder of the quantized model. */
  quantized: string;
  /** What it is called. */
  name: string;
  /** The same original, rounded to nearest as each of these configurations says. */
  plain: { name: string; quantization: QuantizationConfig }[];
  /** Rows of token ids, all of one length. */
  rows: readonly (readonly number[])[];
  heldOut: boolean;
  onRow?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

/**
 * Compares a saved model with its original and with plain affine quantization. One of them is in memory at a time: what the
 * original predicts lies in files meanwhile, in a folder beside the saved model.
 * @throws UserError where one of them cannot be loaded, or the signal ends the work
 */
export async function reportQuality(options: ReportOptions): Promise<QualityReport> {
  const { source, quantized, name, plain, heldOut, signal } = options;
  const original = new SavedLogits(`${resolve(quantized)}.report`);
  const measured: Quality[] = [];
  let rows = options.rows;
  let done = 0;
  const measure = async (name: string, folder: string, quantization?: QuantizationConfig) => {
    const { model } = await openWeights(folder, await readConfig(folder));
    try {
      if (quantization) roundToNearest(model, quantization);
      if (measured.length === 0) rows = rowsWithin(model, rows);
      const total = rows.length * (plain.length + 2);
      const onRow = () => options.onRow?.(++done, total);
      measured.push({ name, ...(await measureQuality(model, rows, original, { onRow, signal })) });
    } finally {
      model.dispose();
      mx.clearCache();
    }
  };
  try {
    await original.open();
    await measure("original", source);
    await measure(name, quantized);
    for (const { name, quantization } of plain) await measure(name, source, quantization);
    return { held_out: heldOut, rows: rows.length, tokens: rows.length * rows[0]!.length, models: measured };
  } finally {
    await original.delete();
  }
}

/** The original's logits take no more bytes than this, a vocabulary of 150,000 included. */
const mostBytes = 2 ** 31;

/** As many rows as the original's logits may take: one at least. */
function rowsWithin(model: LanguageModel, rows: ReportOptions["rows"]): ReportOptions["rows"] {
  const widest = Math.max(...model.namedParameters().map(([, { dtype }]) => mx.itemSize(dtype)));
  return rows.slice(0, Math.max(1, Math.floor(mostBytes / (rows[0]!.length * model.vocabSize * widest))));
}

/** What the original gives for each row, in files: (1, T, V) each. */
class SavedLogits {
  constructor(private readonly folder: string) {}

  /** A folder that a killed run left is emptied. */
  async open(): Promise<void> {
    await this.delete();
    await mkdir(this.folder, { recursive: true });
  }

  #path(row: number): string {
    return join(this.folder, `${row}.safetensors`);
  }

  has(row: number): boolean {
    return existsSync(this.#path(row));
  }

  save(row: number, logits: Tensor): void {
    try {
      mx.saveSafetensors(this.#path(row), new Map([["logits", logits]]));
    } catch (error) {
      throw systemError(error, `the model is saved, but the report on it cannot be made (${this.folder})`) ?? error;
    }
  }

  /** Kept: the caller releases it. */
  load(row: number): Tensor {
    return mx.keep(mx.scope(() => mx.loadSafetensors(this.#path(row)).arrays.get("logits")!));
  }

  async delete(): Promise<void> {
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** Quantizes each layer as config.json's `quantization` says, a layer at a time. */
function roundToNearest(model: LanguageModel, config: QuantizationConfig): void {
  type Entry = { group_size?: number | null; bits?: number | null };
  const choice = ({ group_size, bits }: Entry) => ({ groupSize: group_size, bits });
  quantize(model, {
    ...choice(config),
    predicate(path, module) {
      const entry = config[path];
      if (!isQuantizable(module) || entry === false) return false;
      return typeof entry === "object" && entry !== null ? choice(entry as Entry) : true;
    },
  });
  for (const [, tensor] of model.namedParameters()) mx.eval(tensor);
}

/** Perplexity of a model, and its divergence from the original: over all tokens of the rows, a row at a time. */
async function measureQuality(
  model: LanguageModel,
  rows: ReportOptions["rows"],
  original: SavedLogits,
  { onRow, signal }: { onRow: () => void; signal?: AbortSignal },
): Promise<Omit<Quality, "name">> {
  const all = { loss: 0, divergence: 0 };
  for (const [i, row] of rows.entries()) {
    checkStopped(signal);
    const { loss, divergence } = measureRow(model, row, original, i);
    all.loss += loss;
    all.divergence += divergence;
    onRow();
    await breathe();
  }
  const tokens = rows.length * rows[0]!.length;
  return {
    perplexity: Math.exp(all.loss / (tokens - rows.length)),
    kl_divergence: all.divergence / tokens,
    bits_per_weight: bitsPerWeight(model),
    size: model.namedParameters().reduce((sum, [, { nbytes }]) => sum + nbytes, 0),
  };
}

/** So many logits are compared at a time. */
const logitsAtATime = 2 ** 21;

/** Sums over a row's tokens. Where nothing is saved of the row yet, the model is the original. */
function measureRow(
  model: LanguageModel,
  row: readonly number[],
  original: SavedLogits,
  index: number,
): { loss: number; divergence: number } {
  const total = { loss: 0, divergence: 0 };
  const logits = mx.keep(mx.scope(() => model.forward(mx.array(row, "uint32", [1, row.length]))));
  let wanted: Tensor | null = null;
  try {
    if (!original.has(index)) original.save(index, logits);
    wanted = original.load(index);
    mx.eval(logits, wanted);
    const step = Math.max(1, Math.floor(logitsAtATime / model.vocabSize));
    for (let from = 0; from < row.length; from += step) {
      const positions = { from, to: Math.min(from + step, row.length) };
      const sums = mx.scope(() => compare(logits, wanted!, row, positions));
      mx.eval(sums);
      total.loss += sums.loss.item();
      total.divergence += sums.divergence.item();
      for (const sum of Object.values(sums)) sum.dispose();
    }
    return total;
  } finally {
    mx.release([logits, wanted]);
    mx.clearCache();
  }
}

/** Sums over some positions of a row; behind its last token nothing is known to follow. */
function compare(
  logits: Tensor,
  wanted: Tensor,
  row: readonly number[],
  { from, to }: { from: number; to: number },
): { loss: Tensor; divergence: Tensor } {
  const [student, teacher] = [logits, wanted].map((x) => x.at(0, mx.slice(from, to))) as [Tensor, Tensor];
  const next = [...row.slice(from + 1, to), row[to] ?? 0];
  const weights = mx.array(
    next.map((_, i) => (from + i + 1 < row.length ? 1 : 0)),
    "float32",
  );
  return {
    loss: crossEntropy(student.astype("float32"), mx.array(next, "uint32"), { weights, reduction: "sum" }),
    divergence: klDivergence(student, teacher).sum(),
  };
}

/** The report as lines of a table. */
export function qualityLines({ held_out, rows, tokens, models }: QualityReport): string[] {
  const width = Math.max(...models.map(({ name }) => name.length));
  const row = (name: string, cells: readonly string[]) =>
    `${name.padEnd(width)} ${cells.map((cell) => cell.padStart(12)).join("")}`;
  const text = held_out ? "held-out text" : "the calibration text itself: nothing was held out";
  return [
    `Quality on ${text} (${rows} rows, ${tokens} tokens)`,
    row("", ["perplexity", "mean KL", "bits/weight", "size"]),
    ...models.map(({ name, perplexity, kl_divergence: kl, bits_per_weight: bits, size }) =>
      row(name, [perplexity.toFixed(3), kl.toFixed(5), bits.toFixed(3), `${(size / 1e6).toFixed(1)} MB`]),
    ),
  ];
}

/** Differences below this are noise: of the mean divergence, and of bits a weight. */
const noise = { divergence: 0.01, bits: 0.01 };

/** What to change where a method comes out worse than plain rounding, by its name. */
const changes: Readonly<Record<string, string>> = {
  awq: "more calibration data (--num-samples), text like what the model is for (--data-path), or a smaller --group-size",
  gptq: "more calibration data (--num-samples), text like what the model is for (--data-path), or a smaller --group-size",
  dwq: "a lower --learning-rate, more --num-samples, or data like what the model is for (--data-path)",
  dynamic_quant:
    "more calibration data (--num-samples), text like what the model is for (--data-path), or a larger --target-bpw",
};

/** In words, that the quantized model is farther from the original than a plain one of no more bits; else null. */
export function adviceWhereWorse({ models: [, ours, ...plain] }: QualityReport): string | null {
  if (!ours) return null;
  const better = plain
    .filter(({ bits_per_weight: bits }) => bits <= ours.bits_per_weight + noise.bits)
    .filter(({ kl_divergence: kl }) => kl < ours.kl_divergence * (1 - noise.divergence))
    .sort((a, b) => a.kl_divergence - b.kl_divergence)[0];
  if (!better) return null;
  const [mine, theirs] = [ours, better].map(({ kl_divergence: kl }) => kl.toFixed(5));
  return `${ours.name} came out worse than ${better.name} (mean KL ${mine}, not ${theirs}). Try ${changes[ours.name] ?? "other settings"}; or take plain rounding: mlxlm convert -q`;
}
