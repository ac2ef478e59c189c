/** GPTQ from a model's folder to a quantized one. */
import { tokenizerOptions } from "../convert/config";
import { bitsPerWeight, parameterCount } from "../convert/quantize-model";
import { checkTarget, saveModel } from "../convert/save";
import * as mx from "../mlx";
import { isLead } from "../mlx/group-environment";
import type { LanguageModel } from "../models";
import type { QuantizationConfig } from "../nn";
import { loadTokenizer } from "../text/tokenizer";
import { checkRows, quantizingGroup } from "./across-ranks";
import { type Calibration, loadCalibration } from "./calibration";
import { fallbackLayers, gptqLayers, gptqQuantize } from "./gptq";
import { checkAffine, checkGroups, openSource } from "./source-model";
import { checkWork, closeWork, fingerprint, openWork, type WorkSettings, weightsMark } from "./work-folder";

export interface GptqSettings {
  bits: number;
  groupSize: number;
  fallbackBits: number;
  fallbackGroupSize: number;
  numSamples: number;
  sequenceLength: number;
  seed: number;
  dataPath?: string;
  /** Go on with the work that was begun on the same target. */
  resume: boolean;
}

export interface GptqHooks {
  /** As each part of the work begins. */
  onStage?: (line: string) => void;
  /** Of a download of data, in bytes. */
  onDownload?: (done: number, total: number) => void;
  /** In batches of data and layers. */
  onProgress?: (done: number, total: number) => void;
  onSave?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

export interface GptqResult {
  parameters: number;
  bits_per_weight: number;
  /** How the layers are packed. */
  quantization: QuantizationConfig;
  /** The data that is left to measure on. */
  calibration: Calibration;
}

/**
 * Quantizes the model in `source` and saves it to `target`. Everything that can be wrong is looked at before the work.
 * @throws UserError for a model, data or settings that GPTQ cannot take, and where the signal ends the work
 */
export async function quantizeByGptq(
  source: { path: string; repo?: string },
  target: string,
  settings: GptqSettings,
  hooks: GptqHooks = {},
): Promise<GptqResult> {
  checkAffine(settings.bits, settings.groupSize, { bits: "--bits", groupSize: "--group-size" });
  checkAffine(settings.fallbackBits, settings.fallbackGroupSize, {
    bits: "--fallback-bits",
    groupSize: "--fallback-group-size",
  });
  const group = quantizingGroup(settings);
  await checkTarget(target);
  hooks.onStage?.("Loading");
  // Before the model: its building draws numbers, after which Python draws the order of the data.
  mx.random.seed(settings.seed);
  const { model, config } = await openSource(source.path);
  let isSaving = false;
  try {
    checkLayers(model, settings);
    const tokenizer = await loadTokenizer(source.path, await tokenizerOptions(config));
    const calibration = await loadCalibration(tokenizer, {
      ...settings,
      vocabSize: model.vocabSize,
      onProgress: hooks.onDownload,
      signal: hooks.signal,
    });
    checkRows(calibration.rows, group);
    const begun = await workSettings(source.path, settings, calibration);
    await checkWork(target, begun, settings);
    const work = group ? null : await openWork(target, begun);

    hooks.onStage?.(`Quantizing by ${calibration.rows.length} rows of ${settings.sequenceLength} tokens`);
    const quantized = await gptqQuantize(model, config, calibration.rows, {
      ...settings,
      fallback: { bits: settings.fallbackBits, groupSize: settings.fallbackGroupSize },
      work,
      group,
      onProgress: hooks.onProgress,
      signal: hooks.signal,
    });
    const facts = { parameters: parameterCount(model), bits_per_weight: bitsPerWeight(model) };
    if (isLead()) {
      isSaving = true;
      await saveModel(target, model, quantized, { source: source.path, repo: source.repo, onProgress: hooks.onSave });
      if (work !== null) await closeWork(target);
    }
    return { ...facts, quantization: quantized.quantization as QuantizationConfig, calibration };
  } finally {
    if (!isSaving) model.dispose();
  }
}

/** @throws UserError where a layer does not divide into groups */
function checkLayers(model: LanguageModel, { groupSize, fallbackGroupSize }: GptqSettings): void {
  checkGroups(gptqLayers(model), groupSize, "--group-size");
  checkGroups(fallbackLayers(model), fallbackGroupSize, "--fallback-group-size");
}

/** What must be the same for steps that are done to be taken over. */
async function workSettings(
  folder: string,
  { bits, groupSize, fallbackBits, fallbackGroupSize, sequenceLength }: GptqSettings,
  { rows }: Calibration,
): Promise<WorkSettings> {
  return {
    method: "gptq",
    model: await weightsMark(folder),
    "calibration data": fingerprint(rows),
    ...{ "--bits": bits, "--group-size": groupSize },
    ...{ "--fallback-bits": fallbackBits, "--fallback-group-size": fallbackGroupSize },
    ...{ "--sequence-length": sequenceLength, "--num-samples": rows.length },
  };
}
