/** How much of a model quantization took: perplexity and divergence from the original, beside bits and bytes. */
import { readConfig } from "../convert/config";
import { openWeights } from "../convert/load";
import { bitsPerWeight } from "../convert/quantize-model";
import { breathe } from "../macrotask";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { crossEntropy, isQuantizable, type QuantizationConfig, quantize } from "../nn";
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
 * Compares a saved model with its original and with plain affine quantization. All are in memory at once.
 * @throws UserError where one of them cannot be loaded, or the signal ends the work
 */
export async function reportQuality(options: ReportOptions): Promise<QualityReport> {
  const { source, quantized, name, plain, rows, heldOut, onRow, signal } = options;
  const opened: { name: string; model: LanguageModel }[] = [];
  const open = async (name: string, folder: string) => {
    const { model } = await openWeights(folder, await readConfig(folder));
    opened.push({ name, model });
    return model;
  };
  try {
    await open("original", source);
    await open(name, quantized);
    for (const { name, quantization } of plain) roundToNearest(await open(name, source), quantization);
    const models = await measureQuality(opened, rows, { onRow, signal });
    return { held_out: heldOut, rows: rows.length, tokens: rows.length * rows[0]!.length, models };
  } finally {
    for (const { model } of opened) model.dispose();
    mx.clearCache();
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

/**
 * Perplexity of each model, and its divergence from the first: over all tokens of the rows, a row at a time.
 * @throws UserError where the signal ends the work
 */
export async function measureQuality(
  models: readonly { name: string; model: LanguageModel }[],
  rows: readonly (readonly number[])[],
  { onRow, signal }: Pick<ReportOptions, "onRow" | "signal"> = {},
): Promise<Quality[]> {
  const losses = models.map(() => 0);
  const divergences = models.map(() => 0);
  for (const [done, row] of rows.entries()) {
    checkStopped(signal);
    const sums = mx.scope(() => {
      const tokens = mx.array(row, "uint32", [1, row.length]);
      const all = models.map(({ model }) => model.forward(tokens).astype("float32"));
      return all.map((logits) => {
        const loss = crossEntropy(logits.at(0, mx.slice(0, -1)), tokens.at(0, mx.slice(1)));
        return [loss.mean(), klDivergence(logits, all[0]!).mean()] as const;
      });
    });
    mx.eval(sums);
    for (const [i, [loss, divergence]] of sums.entries()) {
      losses[i]! += loss.item();
      divergences[i]! += divergence.item();
      loss.dispose();
      divergence.dispose();
    }
    mx.clearCache();
    onRow?.(done + 1, rows.length);
    await breathe();
  }
  return models.map(({ name, model }, i) => ({
    name,
    perplexity: Math.exp(losses[i]! / rows.length),
    kl_divergence: divergences[i]! / rows.length,
    bits_per_weight: bitsPerWeight(model),
    size: model.namedParameters().reduce((sum, [, { nbytes }]) => sum + nbytes, 0),
  }));
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
