/** AWQ from a model's folder to a quantized one. */
import { tokenizerOptions } from "../convert/config";
import { bitsPerWeight, parameterCount } from "../convert/quantize-model";
import { checkTarget, saveModel } from "../convert/save";
import { readConfig } from "../convert/source";
import * as mx from "../mlx";
import { isLead } from "../mlx/group-environment";
import { packing, type QuantizationConfig } from "../nn";
import { loadTokenizer } from "../text/tokenizer";
import { checkRows, quantizingGroup, RowShare } from "./across-ranks";
import { awqConfig, awqFacts, awqQuantize, checkAwq } from "./awq";
import { type Calibration, loadCalibration } from "./calibration";
import type { BlockLoss } from "./saved-blocks";
import { checkAffine, openSource, type SourceModel } from "./source-model";
import { checkWork, closeWork, fingerprint, openWork, type WorkSettings, weightsMark } from "./work-folder";

export interface AwqSettings {
  bits: number;
  groupSize: number;
  embedBits: number;
  embedGroupSize: number;
  nGrid: number;
  numSamples: number;
  sequenceLength: number;
  seed: number;
  dataPath?: string;
  /** Go on with the work that was begun on the same target. */
  resume: boolean;
}

export interface AwqHooks {
  /** As each part of the work begins. */
  onStage?: (line: string) => void;
  /** Of a download of data, in bytes. */
  onDownload?: (done: number, total: number) => void;
  onSearch?: (done: number, total: number) => void;
  onBlock?: (index: number, loss: BlockLoss, resumed: boolean) => void;
  onSave?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

export interface AwqResult {
  parameters: number;
  bits_per_weight: number;
  /** How the layers are packed. */
  quantization: QuantizationConfig;
  /** The data that is left to measure on. */
  calibration: Calibration;
}

/**
 * Quantizes the model in `source` and saves it to `target`. Everything that can be wrong is looked at before the work.
 * @throws UserError for a model, data or settings that AWQ cannot take, and where the signal ends the work
 */
export async function quantizeByAwq(
  source: { path: string; repo?: string },
  target: string,
  settings: AwqSettings,
  hooks: AwqHooks = {},
): Promise<AwqResult> {
  const { bits, groupSize, embedBits, embedGroupSize, nGrid, resume } = settings;
  checkAffine(bits, groupSize, { bits: "--bits", groupSize: "--group-size" });
  checkAffine(embedBits, embedGroupSize, { bits: "--embed-bits", groupSize: "--embed-group-size" });
  const group = quantizingGroup(settings);
  await checkTarget(target);
  hooks.onStage?.("Loading");
  mx.random.seed(settings.seed);
  const plan = await awqFacts((await readConfig(source.path)).model_type);
  const opened = await openSource(source.path);
  const { model, config } = opened;
  const how = packing({ bits, groupSize });
  const embedding = packing({ bits: embedBits, groupSize: embedGroupSize });
  let isSaving = false;
  try {
    checkAwq(model, { plan, how, embedding });
    const calibration = await calibrationFor(opened, source.path, settings, hooks);
    const { rows } = calibration;
    checkRows(rows, group);
    const begun = await workSettings(source.path, settings, calibration);
    await checkWork(target, begun, { resume });
    const folder = group ? undefined : await openWork(target, begun);

    hooks.onStage?.(`Quantizing by ${rows.length} rows of ${settings.sequenceLength} tokens`);
    const share = group && new RowShare(group, rows.length);
    const own = share ? rows.slice(share.first, share.end) : rows;
    const tokens = mx.keep(mx.array(own.flat(), "uint32", [own.length, settings.sequenceLength]));
    let block = 0;
    try {
      await awqQuantize(model, tokens, {
        ...{ plan, how, embedding, grid: nGrid, folder, share, signal: hooks.signal },
        onSearch: (done, total) => hooks.onSearch?.(block * total + done, model.layers.length * total),
        onBlock: (done, _, loss, resumed) => {
          block = done;
          hooks.onBlock?.(done - 1, loss, resumed);
        },
      });
    } finally {
      mx.release(tokens);
    }
    const quantization = awqConfig(model, how);
    const facts = { parameters: parameterCount(model), bits_per_weight: bitsPerWeight(model) };
    if (isLead()) {
      isSaving = true;
      const saved = { ...config, quantization, quantization_config: quantization };
      await saveModel(target, model, saved, { source: source.path, repo: source.repo, onProgress: hooks.onSave });
      if (folder !== undefined) await closeWork(target);
    }
    return { ...facts, quantization, calibration };
  } finally {
    if (!isSaving) model.dispose();
  }
}

async function calibrationFor(
  { model, config }: SourceModel,
  folder: string,
  { numSamples, sequenceLength, dataPath }: AwqSettings,
  { onDownload, signal }: AwqHooks,
): Promise<Calibration> {
  const tokenizer = await loadTokenizer(folder, await tokenizerOptions(config));
  const { vocabSize } = model;
  return loadCalibration(tokenizer, {
    numSamples,
    sequenceLength,
    vocabSize,
    dataPath,
    onProgress: onDownload,
    signal,
  });
}

/** What must be the same for blocks that are done to be taken over. */
async function workSettings(
  folder: string,
  { bits, groupSize, embedBits, embedGroupSize, nGrid, sequenceLength }: AwqSettings,
  { rows }: Calibration,
): Promise<WorkSettings> {
  return {
    method: "awq",
    model: await weightsMark(folder),
    "calibration data": fingerprint(rows),
    ...{ "--bits": bits, "--group-size": groupSize },
    ...{ "--embed-bits": embedBits, "--embed-group-size": embedGroupSize },
    ...{ "--n-grid": nGrid, "--sequence-length": sequenceLength, "--num-samples": rows.length },
  };
}
