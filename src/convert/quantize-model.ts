/** Quantizing a whole model, with the configuration that says what was done. */
import type { QuantizationMode } from "../mlx";
import type { LanguageModel } from "../models";
import { isQuantizable, type Module, packing, quantize } from "../nn";
import type { ModelConfig } from "./config";
import type { LayerQuantization } from "./recipes";

export interface QuantizeModelOptions {
  groupSize?: number | null;
  bits?: number | null;
  mode?: QuantizationMode;
  /** What becomes of a layer; all that can be quantized are, in the common way, unless given. */
  predicate?: (path: string) => LayerQuantization | null;
}

/**
 * Quantizes the model's layers, lazily, and returns its new configuration. Layers whose inputs are no multiple of the
 * group size stay as they are.
 */
export function quantizeModel(model: LanguageModel, config: ModelConfig, options: QuantizeModelOptions): ModelConfig {
  const common = packing({ groupSize: options.groupSize || null, bits: options.bits || null, mode: options.mode });
  const ours = { group_size: common.groupSize, bits: common.bits, mode: common.mode };
  // Of a model that is partly quantized already, every new layer is written down by itself.
  const partly = config.quantization !== undefined;
  const entries: Record<string, unknown> = partly ? { ...(config.quantization as object) } : { ...ours };

  quantize(model, {
    ...common,
    predicate(path, module) {
      if (!isQuantizable(module) || module.weight.dim(-1) % common.groupSize !== 0) return false;
      const special = options.predicate?.(path);
      if (special) {
        entries[path] = special;
        return { groupSize: special.group_size, bits: special.bits, mode: special.mode };
      }
      if (partly) entries[path] = ours;
      return true;
    },
  });
  return { ...config, quantization: entries, quantization_config: entries };
}

/** How many numbers the model has, whatever they are packed in. */
export function parameterCount(model: Module): number {
  let count = 0;
  for (const [, module] of model.namedModules()) {
    if (module.children().length > 0) continue;
    const { weight, bias } = module as { weight?: { size: number }; bias?: { size: number } };
    if ("packing" in module && weight) {
      count += Math.floor((weight.size * 32) / (module.packing as { bits: number }).bits) + (bias?.size ?? 0);
    } else {
      for (const [, tensor] of module.namedParameters()) count += tensor.size;
    }
  }
  return count;
}

/** Bits that the model's tensors take, for each of its numbers. */
export function bitsPerWeight(model: Module): number {
  const bytes = model.namedParameters().reduce((sum, [, tensor]) => sum + tensor.nbytes, 0);
  return (bytes * 8) / parameterCount(model);
}
