/** From one checkpoint to another: its dtype changed, its layers quantized or unpacked. */
import { ExitCode, isLackOfMemory, UserError } from "../errors";
import type { QuantizationMode } from "../mlx";
import * as mx from "../mlx";
import { architectureOf, type LanguageModel } from "../models";
import { dequantize, packing } from "../nn";
import { cast } from "./cast";
import { packingForms } from "./check-weights";
import type { ModelConfig } from "./config";
import { quantizeDraftHead } from "./draft-layers";
import { freeModel, openWeights } from "./load";
import { architecturePredicate, bitsPerWeight, parameterCount, quantizeModel } from "./quantize-model";
import { type RecipeName, recipe } from "./recipes";
import { saveModel } from "./save";
import { openSource } from "./source";

export interface ConvertOptions {
  quantize?: { groupSize?: number; bits?: number; mode?: QuantizationMode; recipe?: RecipeName };
  dequantize?: boolean;
  /** Of what is not quantized; the configuration's, or the weights' own, unless given. */
  dtype?: SavedDtype;
  /** Keep the model's own layers for drafting, in a file that Python passes over. */
  keepMtp?: boolean;
  /** Called as each part of the work begins, with mlx-lm's words for it. */
  onStage?: (line: string) => void;
  onProgress?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

const savedDtypes = ["float16", "bfloat16", "float32"] as const;

export type SavedDtype = (typeof savedDtypes)[number];

export interface Converted {
  parameters: number;
  bits_per_weight: number;
}

/**
 * Converts the checkpoint in `source` and saves it to `target`. Weights are read, changed and written one after the
 * other.
 * @throws UserError where the source cannot be loaded or quantized so, or the target exists or cannot be written
 */
export async function convertModel(
  { path, repo }: { path: string; repo?: string },
  target: string,
  options: ConvertOptions,
): Promise<Converted> {
  const { onStage, onProgress, signal } = options;
  if (options.quantize) checkForm(options.quantize);
  onStage?.("Loading");
  const source = await openSource(path);
  const opened = await openWeights(path, source.config, { draftHead: options.keepMtp });
  const { model, draftHead } = opened;
  let { config } = opened;
  let result: Converted;
  try {
    const dtype = options.dtype ?? configuredDtype(config);
    if (dtype) {
      onStage?.(`Using dtype: ${dtype}`);
      const { keepsDtype } = await architectureOf(config);
      cast(model, dtype, keepsDtype);
      if (draftHead) cast(draftHead, dtype, keepsDtype);
    }
    if (options.quantize) {
      onStage?.("Quantizing");
      if (draftHead) quantizeDraftHead(draftHead, packingOf(options.quantize), await architecturePredicate(config));
      config = await quantizeWith(model, config, options.quantize);
    }
    if (options.dequantize) {
      onStage?.("Dequantizing");
      dequantize(model);
      if (draftHead) dequantize(draftHead);
      const { quantization, quantization_config, ...rest } = config;
      config = rest;
    }
    result = { parameters: parameterCount(model), bits_per_weight: bitsPerWeight(model) };
    if (options.quantize) onStage?.(`Quantized model with ${result.bits_per_weight.toFixed(3)} bits per weight.`);
  } catch (error) {
    freeModel({ model, draftHead });
    throw error;
  }
  const saving = { repo, draftHead, onProgress, signal };
  await source.companions((folder) => saveModel(target, model, config, { source: folder, ...saving }));
  return result;
}

/** What the configuration calls its dtype, where it is one that can be saved. */
function configuredDtype(config: ModelConfig): SavedDtype | undefined {
  const inner = config.text_config as { dtype?: unknown } | undefined;
  const named = config.torch_dtype ?? inner?.dtype;
  return savedDtypes.find((dtype) => dtype === named);
}

const packingOf = ({ groupSize, bits, mode }: NonNullable<ConvertOptions["quantize"]>) =>
  packing({ groupSize: groupSize || null, bits: bits || null, mode });

/** @throws UserError (usage) for numbers that MLX packs no weight with */
function checkForm(asked: NonNullable<ConvertOptions["quantize"]>): void {
  const how = packingOf(asked);
  const { bits, groupSizes } = packingForms[how.mode];
  const wrong = [
    ...(bits.includes(how.bits) ? [] : [`${how.bits} bits`]),
    ...(groupSizes.includes(how.groupSize) ? [] : [`groups of ${how.groupSize}`]),
  ];
  if (wrong.length === 0) return;
  throw new UserError(`this model cannot be quantized so: ${how.mode} has no ${wrong.join(" in ")}`, {
    code: ExitCode.usage,
    hint: `${how.mode} takes ${anyOf(bits)} bits in groups of ${anyOf(groupSizes)}.`,
  });
}

const anyOf = (numbers: readonly number[]) =>
  numbers.length === 1 ? `${numbers[0]}` : `${numbers.slice(0, -1).join(", ")} or ${numbers.at(-1)}`;

async function quantizeWith(
  model: LanguageModel,
  config: ModelConfig,
  { groupSize, bits, mode, recipe: name }: NonNullable<ConvertOptions["quantize"]>,
): Promise<ModelConfig> {
  const predicate = name ? recipe(name, model, groupSize ?? null) : await architecturePredicate(config);
  try {
    return quantizeModel(model, config, { groupSize, bits, mode, predicate });
  } catch (error) {
    if (!(error instanceof mx.MlxError) || isLackOfMemory(error)) throw error;
    throw new UserError(`this model cannot be quantized so: ${error.message}`, {
      code: ExitCode.usage,
      hint: "Take another --q-mode, or other bits.",
    });
  }
}
