/** Dynamic quantization from a model's folder to a quantized one: more bits for the layers that feel it most. */
import { type ModelConfig, tokenizerOptions } from "../convert/config";
import { bitsPerWeight, parameterCount, quantizeModel } from "../convert/quantize-model";
import { checkTarget, saveModel } from "../convert/save";
import { ExitCode, UserError } from "../errors";
import { measurePerplexity } from "../evaluate/perplexity";
import * as mx from "../mlx";
import { isLead } from "../mlx/group-environment";
import type { LanguageModel } from "../models";
import type { QuantizationConfig } from "../nn";
import { loadTokenizer } from "../text/tokenizer";
import { quantizingGroup } from "./across-ranks";
import { BitBudget } from "./bit-budget";
import { type Calibration, hasCalibrationData, loadCalibration } from "./calibration";
import { estimateSensitivities, type Sensitivities } from "./sensitivities";
import { readSensitivities, writeSensitivities } from "./sensitivity-file";
import { checkAffine, checkGroups, openSource, quantizableLayers, type SourceModel } from "./source-model";
import { checkWork, closeWork, fingerprint, openWork, type WorkSettings, weightsMark } from "./work-folder";

export interface DynamicSettings {
  /** File with sensitivities that are known already. */
  sensitivities?: string;
  /** File that sensitivities are saved to. */
  sensitivitiesTo: string;
  targetBpw: number;
  /** Nobody asked for that target: where it cannot be reached, the nearest one will do. */
  nearestTarget?: boolean;
  lowBits: number;
  lowGroupSize: number;
  highBits: number;
  highGroupSize: number;
  reportPpl: boolean;
  gradCheckpoint: boolean;
  numSamples: number;
  sequenceLength: number;
  seed: number;
  dataPath?: string;
  /** Go on with the work that was begun on the same target. */
  resume: boolean;
}

export interface DynamicHooks {
  /** As each part of the work begins. */
  onStage?: (line: string) => void;
  /** Of a download of data, in bytes. */
  onDownload?: (done: number, total: number) => void;
  onBatch?: (done: number, total: number) => void;
  /** Perplexity on the calibration data, where it was asked for. */
  onPerplexity?: (of: "original" | "quantized", perplexity: number) => void;
  onSave?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

export interface DynamicResult {
  parameters: number;
  bits_per_weight: number;
  threshold: number;
  /** Layers in high precision. */
  high_layers: string[];
  /** As many bits without knowledge of the layers, and without a choice. */
  plain: { name: string; quantization: QuantizationConfig }[];
  /** The data that is left to measure on; null where sensitivities were given and there is none. */
  calibration: Calibration | null;
}

/**
 * Quantizes the model in `source` and saves it to `target`. Everything that can be wrong is looked at before the work.
 * @throws UserError for a model, data or settings that do not go together, and where the signal ends the work
 */
export async function quantizeDynamically(
  source: { path: string; repo?: string },
  target: string,
  settings: DynamicSettings,
  hooks: DynamicHooks = {},
): Promise<DynamicResult> {
  const low = { bits: settings.lowBits, groupSize: settings.lowGroupSize };
  const high = { bits: settings.highBits, groupSize: settings.highGroupSize };
  checkAffine(low.bits, low.groupSize, { bits: "--low-bits", groupSize: "--low-group-size" });
  checkAffine(high.bits, high.groupSize, { bits: "--high-bits", groupSize: "--high-group-size" });
  const group = quantizingGroup(settings);
  // Where there is nothing to estimate, ranks do not wait for each other: the first may have saved by now.
  if (isLead()) await checkTarget(target);
  hooks.onStage?.("Loading");
  const opened = await openSource(source.path);
  const { model } = opened;
  let isSaving = false;
  try {
    const layers = quantizableLayers(model);
    checkGroups(layers, low.groupSize, "--low-group-size");
    checkGroups(layers, high.groupSize, "--high-group-size");
    const budget = new BitBudget(model, low, high);
    const wanted = targetOf(budget, settings, hooks);
    const names = layers.map(([path]) => path);
    const known = settings.sensitivities ? await readSensitivities(settings.sensitivities, names) : null;
    const needsData = !known || settings.reportPpl || hasCalibrationData(settings.dataPath);
    const calibration = needsData ? await calibrationFor(opened, source.path, settings, hooks) : null;
    const sensitivities =
      known ?? (await estimated(model, source.path, target, calibration!, { ...settings, group }, hooks));
    const measure = async (of: "original" | "quantized") => {
      if (settings.reportPpl && isLead()) hooks.onPerplexity?.(of, await perplexity(model, calibration!, hooks));
    };
    await measure("original");
    const threshold = budget.threshold(sensitivities, wanted);
    const isHigh = (path: string) => sensitivities.get(path)! > threshold;
    const quantized = choose(opened, settings, isHigh);
    const result: DynamicResult = {
      parameters: parameterCount(model),
      bits_per_weight: bitsPerWeight(model),
      threshold,
      high_layers: names.filter(isHigh),
      plain: plainOnes(settings, budget.spread(isHigh)),
      calibration,
    };
    await measure("quantized");
    if (isLead()) {
      isSaving = true;
      await saveModel(target, model, quantized, { source: source.path, repo: source.repo, onProgress: hooks.onSave });
      if (!group) await closeWork(target);
    }
    return result;
  } finally {
    if (!isSaving) model.dispose();
  }
}

/** @throws UserError for a target that was asked for and cannot be reached */
function targetOf(budget: BitBudget, { targetBpw, nearestTarget }: DynamicSettings, { onStage }: DynamicHooks): number {
  if (!nearestTarget) {
    budget.checkTarget(targetBpw);
    return targetBpw;
  }
  const target = budget.nearest(targetBpw);
  if (target !== targetBpw) {
    onStage?.(`${targetBpw} bits per weight cannot be reached with these bits: going to ${target.toFixed(3)}`);
  }
  return target;
}

async function calibrationFor(
  { model, config }: SourceModel,
  folder: string,
  settings: DynamicSettings,
  { onDownload, signal }: DynamicHooks,
): Promise<Calibration> {
  const tokenizer = await loadTokenizer(folder, await tokenizerOptions(config));
  mx.random.seed(settings.seed);
  return loadCalibration(tokenizer, {
    numSamples: settings.numSamples,
    sequenceLength: settings.sequenceLength,
    dataPath: settings.dataPath,
    vocabSize: model.vocabSize,
    onProgress: onDownload,
    signal,
  });
}

/** Estimates, and saves for another time. */
async function estimated(
  model: LanguageModel,
  folder: string,
  target: string,
  { rows }: Calibration,
  settings: DynamicSettings & { group: mx.distributed.Group | null },
  { onStage, onBatch, signal }: DynamicHooks,
): Promise<Sensitivities> {
  const { group } = settings;
  const { lowBits, lowGroupSize, highBits, highGroupSize, gradCheckpoint, resume } = settings;
  const begun: WorkSettings = {
    method: "dynamic_quant",
    model: await weightsMark(folder),
    "calibration data": fingerprint(rows),
    ...{ "--low-bits": lowBits, "--low-group-size": lowGroupSize },
    ...{ "--high-bits": highBits, "--high-group-size": highGroupSize },
    ...{ "--sequence-length": settings.sequenceLength, "--num-samples": rows.length },
  };
  await checkWork(target, begun, { resume });
  const work = group ? null : await openWork(target, begun);
  onStage?.(`Estimating sensitivities by ${rows.length} rows of ${settings.sequenceLength} tokens`);
  const sensitivities = await estimateSensitivities(model, rows, {
    low: { bits: lowBits, groupSize: lowGroupSize },
    high: { bits: highBits, groupSize: highGroupSize },
    gradCheckpoint,
    work,
    group,
    onBatch,
    signal,
  });
  if (isLead()) await writeSensitivities(settings.sensitivitiesTo, sensitivities);
  onStage?.(`Sensitivities are in ${settings.sensitivitiesTo}`);
  return sensitivities;
}

async function perplexity(
  model: LanguageModel,
  { rows }: Calibration,
  { onBatch, signal }: DynamicHooks,
): Promise<number> {
  const measured = await measurePerplexity(model, rows, { batchSize: 8, onBatch, signal });
  if (measured) return measured.perplexity;
  throw new UserError("stopped", { code: ExitCode.interrupted });
}

/** Quantizes the model, with more bits where `isHigh` says so. */
function choose(
  { model, config }: SourceModel,
  { lowBits, lowGroupSize, highBits, highGroupSize }: DynamicSettings,
  isHigh: (path: string) => boolean,
): ModelConfig {
  return quantizeModel(model, config, {
    bits: lowBits,
    groupSize: lowGroupSize,
    predicate: (path) => (isHigh(path) ? { bits: highBits, group_size: highGroupSize } : null),
  });
}

/** What the result is compared with: all low, all high, and as many bits in layers that nobody chose. */
function plainOnes(
  { lowBits, lowGroupSize, highBits, highGroupSize }: DynamicSettings,
  spread: ReadonlySet<string>,
): DynamicResult["plain"] {
  const low = { group_size: lowGroupSize, bits: lowBits };
  const high = { group_size: highGroupSize, bits: highBits };
  const mixed = Object.fromEntries([...spread].map((path) => [path, high]));
  return [
    { name: `plain affine ${lowBits}/${highBits} bits`, quantization: { ...low, ...mixed } },
    { name: `plain affine ${lowBits} bits`, quantization: low },
    { name: `plain affine ${highBits} bits`, quantization: high },
  ];
}
