/** Quantizing a whole model, with the configuration that says what was done. */
import { ExitCode, UserError } from "../errors";
import type { QuantizationMode } from "../mlx";
import { architectureOf, type LanguageModel } from "../models";
import { isBlockLayer, isQuantizable, type Module, type Packing, packing, quantize } from "../nn";
import { warn } from "../warnings";
import type { ModelConfig } from "./config";
import type { LayerQuantization } from "./recipes";

export interface QuantizeModelOptions {
  groupSize?: number | null;
  bits?: number | null;
  mode?: QuantizationMode;
  predicate?: QuantizationPredicate;
}

/** What becomes of a layer; null: the same as of most. */
export type QuantizationPredicate = (path: string) => LayerQuantization | "leave" | null;

/** What the model's architecture wants of its layers; undefined where it wants nothing special. */
export async function architecturePredicate(config: ModelConfig): Promise<QuantizationPredicate | undefined> {
  const { quantize: choose } = await architectureOf(config);
  if (!choose) return undefined;
  return (path) => {
    const choice = choose(path, config);
    if (choice === undefined || choice === "leave") return choice ?? null;
    const { groupSize = null, bits, mode } = packing(choice);
    return { group_size: groupSize, bits, ...(mode === "affine" ? {} : { mode }) };
  };
}

/**
 * Quantizes the model's layers, lazily, and returns its new configuration. Layers whose inputs are no multiple of the
 * group size stay as they are, with a warning.
 * @throws UserError where no layer can be quantized
 */
export function quantizeModel(model: LanguageModel, config: ModelConfig, options: QuantizeModelOptions): ModelConfig {
  const common = packing({ groupSize: options.groupSize || null, bits: options.bits || null, mode: options.mode });
  const ours = { group_size: common.groupSize, bits: common.bits, mode: common.mode };
  // Of a model that is partly quantized already, every new layer is written down by itself.
  const partly = config.quantization !== undefined;
  const entries: Record<string, unknown> = partly ? { ...(config.quantization as object) } : { ...ours };
  const unfitting = new Map<string, number>();
  let count = 0;

  quantize(model, {
    ...common,
    predicate(path, module) {
      if (!isQuantizable(module)) return false;
      const inputs = module.weight.dim(-1);
      if (inputs % common.groupSize !== 0) {
        unfitting.set(path, inputs);
        return false;
      }
      const special = options.predicate?.(path);
      if (special === "leave") return false;
      count += 1;
      if (special) {
        entries[path] = special;
        return { groupSize: special.group_size, bits: special.bits, mode: special.mode };
      }
      if (partly) entries[path] = ours;
      return true;
    },
  });
  if (count === 0) throw nothingQuantized(model, unfitting, common);
  if (unfitting.size > 0) {
    warn(
      `${listed([...unfitting.keys()])} not quantized: the group size ${common.groupSize} does not divide the inputs`,
    );
  }
  return { ...config, quantization: entries, quantization_config: entries };
}

/** "a, b and 7 more layers are" */
function listed(paths: readonly string[]): string {
  if (paths.length === 1) return `${paths[0]} is`;
  const [first, second] = paths;
  const more = paths.length - 2;
  return more > 0 ? `${first}, ${second} and ${more} more layers are` : `${first} and ${second} are`;
}

/** The group sizes of affine; the other modes have one each. */
const groupSizes = [32, 64, 128];

function nothingQuantized(
  model: Module,
  unfitting: ReadonlyMap<string, number>,
  { groupSize, mode }: Packing,
): UserError {
  const isPacked = model.namedModules().some(([, module]) => "packing" in module);
  if (isPacked) {
    return new UserError(
      `the model is quantized already (${bitsPerWeight(model).toFixed(2)} bits per weight), so there is nothing to quantize`,
      {
        code: ExitCode.usage,
        hint: "Take the original; or unpack this one first, with --dequantize, and quantize the result.",
      },
    );
  }
  const sizes = mode === "affine" ? groupSizes : [packing({ mode }).groupSize].filter((size) => size !== groupSize);
  const fitting = sizes.filter((size) => [...unfitting.values()].some((inputs) => inputs % size === 0));
  const problem =
    unfitting.size > 0
      ? `no layer can be quantized in groups of ${groupSize}: none has a multiple of it as inputs`
      : "the model has no layer that can be quantized";
  return new UserError(problem, {
    code: ExitCode.usage,
    hint: fitting.length > 0 ? `Take another group size: ${fitting.join(", ")}` : "Convert it without quantizing.",
  });
}

/** How many numbers the model has, whatever they are packed in. */
export function parameterCount(model: Module): number {
  let count = 0;
  for (const [, module] of model.namedModules()) {
    if (module.children().length > 0) continue;
    const { weight, bias } = module as { weight?: { size: number }; bias?: { size: number } };
    if (isBlockLayer(module)) {
      count += (module.weight.size / module.blocks.bytes) * module.blocks.block + (bias?.size ?? 0);
    } else if ("packing" in module && weight) {
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
