/** The model that a learned quantizer begins with, and what can be known of it before the work begins. */
import type { ModelConfig } from "../convert/config";
import { openWeights } from "../convert/load";
import { bitsPerWeight } from "../convert/quantize-model";
import { openSource as openCheckpointSource } from "../convert/source";
import { ExitCode, UserError } from "../errors";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { isQuantizable, type Module, type Quantizable } from "../nn";

export interface SourceModel {
  model: LanguageModel;
  config: ModelConfig;
}

/**
 * Opens a model in floating point; its weights are read when they are first needed. Draws what Python's loading draws:
 * a seed set before gives the same calibration rows.
 * @throws UserError where it cannot be loaded, or is quantized already
 */
export async function openSource(folder: string): Promise<SourceModel> {
  const source = await openCheckpointSource(folder);
  if (source.folder === null) {
    throw new UserError(`${folder} is a GGUF file, and a learned quantizer begins with a folder`, {
      code: ExitCode.usage,
      hint: "Make one of it: mlxlm convert --dequantize",
    });
  }
  const { model, config } = await openWeights(folder, source.config);
  const quantized = model.namedModules().find(([, module]) => "packing" in module);
  if (!quantized) return { model, config };
  const bits = bitsPerWeight(model).toFixed(2);
  model.dispose();
  throw new UserError(`${folder} is quantized already (${bits} bits per weight)`, {
    code: ExitCode.usage,
    hint: "Take the original; or unpack this one first: mlxlm convert --dequantize",
  });
}

/** How affine weights may be packed. */
export const { bits: affineBits, groupSizes: affineGroupSizes } = mx.packings.affine;

/** @throws UserError where MLX has no such affine packing; `flags` names those that say it */
export function checkAffine(bits: number, groupSize: number, flags: { bits: string; groupSize: string }): void {
  const check = (value: number, known: readonly number[], flag: string) => {
    if (known.includes(value)) return;
    throw new UserError(`${flag} must be one of ${known.join(", ")}, not ${value}`, { code: ExitCode.usage });
  };
  check(bits, affineBits, flags.bits);
  check(groupSize, affineGroupSizes, flags.groupSize);
}

/** The layers that can be quantized, with their paths. */
export function quantizableLayers(model: Module): [string, Quantizable][] {
  return model
    .namedModules()
    .filter((entry): entry is [string, Quantizable] => isQuantizable(entry[1]) && entry[1].children().length === 0);
}

/** @throws UserError where a layer's inputs do not divide into groups */
export function checkGroups(layers: Iterable<readonly [string, Quantizable]>, groupSize: number, flag: string): void {
  for (const [path, { weight }] of layers) {
    const inputs = weight.dim(-1);
    if (inputs % groupSize === 0) continue;
    const fitting = affineGroupSizes.filter((size) => inputs % size === 0);
    throw new UserError(`${path} has ${inputs} inputs, which are no multiple of the group size ${groupSize}`, {
      code: ExitCode.usage,
      hint: fitting.length > 0 ? `Take ${flag} ${fitting.join(" or ")}.` : "This model cannot be quantized so.",
    });
  }
}
