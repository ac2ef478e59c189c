/** Replacing a model's layers by quantized ones. */
import { ExitCode, UserError } from "../errors";
import type { Quantization, QuantizationMode, Tensor } from "../mlx";
import * as mx from "../mlx";
import { type Packing, type Quantizable, QuantizedLinear } from "./linear";
import type { Module } from "./module";
import { QuantizedSwitchLinear } from "./switch-linear";

/** What becomes of a layer: quantized with the common options, with its own, or left alone. */
export type QuantizationChoice = boolean | Quantization;

export interface QuantizeOptions extends Quantization {
  /** Asked about every layer that has no layers below it; all that can be quantized are, unless given. */
  predicate?: (path: string, module: Module) => QuantizationChoice;
}

export function isQuantizable(module: Module): module is Quantizable {
  return "toQuantized" in module;
}

/**
 * Quantizes layers in place, lazily.
 * @throws Error where the predicate chooses a layer that cannot be quantized
 */
export function quantize(model: Module, { predicate = (_, m) => isQuantizable(m), ...common }: QuantizeOptions = {}) {
  for (const [path, module] of model.namedModules()) {
    if (path === "" || module.children().length > 0) continue;
    const choice = predicate(path, module);
    if (choice === false) continue;
    if (!isQuantizable(module)) throw new Error(`${path}: a ${module.constructor.name} cannot be quantized`);
    const options = choice === true ? common : choice;
    model.replace(
      path,
      mx.scope(() => module.toQuantized(options)),
    );
    module.dispose();
  }
}

/** The modes in which inputs can be packed too. */
const modesOfInputs: readonly QuantizationMode[] = ["nvfp4", "mxfp8"];

/**
 * Makes quantized linear layers pack their inputs too. MLX computes that on GPUs.
 * @throws UserError where a layer is packed in another way, or has a bias; nothing is changed then
 */
export function quantizeActivations(model: Module): void {
  const layers = model.namedModules().filter(([, module]) => module instanceof QuantizedLinear) as [
    string,
    QuantizedLinear,
  ][];
  const refuse = (problem: string) => {
    throw new UserError(`activations cannot be quantized: ${problem}`, {
      code: ExitCode.usage,
      hint: `Leave out --quantize-activations, or convert the model with --q-mode ${modesOfInputs.join(" or ")}.`,
    });
  };
  if (layers.length === 0) refuse("the model has no quantized layers");
  for (const [path, { packing, bias }] of layers) {
    if (!modesOfInputs.includes(packing.mode)) refuse(`${path} is packed in mode ${packing.mode}`);
    if (bias) refuse(`${path} has a bias`);
  }
  for (const [, layer] of layers) layer.quantizesInputs = true;
}

/** Unpacks quantized layers in place, lazily, to the dtype of their scales. */
export function dequantize(model: Module): void {
  for (const [path, module] of model.namedModules()) {
    if (!("toDense" in module)) continue;
    model.replace(
      path,
      mx.scope(() => (module as Packed).toDense()),
    );
    module.dispose();
  }
}

/** A layer that can be unpacked. */
interface Packed extends Module {
  toDense(): Module;
}

/** An entry of config.json's `quantization`. */
interface ConfigEntry {
  group_size?: number | null;
  bits?: number | null;
  mode?: QuantizationMode;
  /** Of experts in nvfp4: each has a scale of its own besides. */
  global_scale?: boolean;
}

/** config.json's `quantization`: common numbers, and entries by path for layers that differ. */
export interface QuantizationConfig extends ConfigEntry {
  [path: string]: unknown;
}

const fromConfig = ({ group_size, bits, mode }: ConfigEntry): Quantization => ({ groupSize: group_size, bits, mode });

/**
 * Gives the model the structure of a quantized checkpoint, before its weights are loaded. An entry of the
 * configuration decides about its path; other layers are quantized where the checkpoint has scales for them, in the
 * way that the shapes tell.
 * @throws UserError where the shapes tell no way that MLX knows
 */
export function quantizeForCheckpoint(
  model: Module,
  config: QuantizationConfig,
  weights: ReadonlyMap<string, Tensor>,
): void {
  quantize(model, {
    ...fromConfig(config),
    predicate(path, module) {
      const entry = config[path];
      if (typeof entry === "boolean") return entry;
      if (typeof entry === "object" && entry !== null) return fromConfig(entry as ConfigEntry);
      return isQuantizable(module) && weights.has(`${path}.scales`) && packingOf(path, module.weight.dim(-1), weights);
    },
  });
  for (const [path, module] of model.namedModules()) {
    if (module instanceof QuantizedSwitchLinear && saysGlobalScale(path, config, weights)) module.addGlobalScale();
  }
}

/** Whether experts have global scales, by their entry or by the checkpoint's tensors. */
const saysGlobalScale = (path: string, config: QuantizationConfig, weights: ReadonlyMap<string, Tensor>): boolean =>
  (config[path] as ConfigEntry | undefined)?.global_scale === true || weights.has(`${path}.global_scale`);

/** The mode whose scales take a byte, by bits and group size. */
function byteScaled(bits: number, groupSize: number): QuantizationMode | undefined {
  const modes = (Object.keys(mx.packings) as QuantizationMode[]).filter((mode) => mode !== "affine");
  return modes.find((mode) => {
    const { standard } = mx.packings[mode];
    return standard.bits === bits && standard.groupSize === groupSize;
  });
}

const isAffine = (bits: number, groupSize: number) =>
  mx.packings.affine.bits.includes(bits) && mx.packings.affine.groupSizes.includes(groupSize);

/**
 * How a layer of the checkpoint with this many inputs is packed, as its shapes tell.
 * @throws UserError where they tell no way that MLX knows
 */
export function packingOf(path: string, inputDims: number, weights: ReadonlyMap<string, Tensor>): Packing {
  const scales = weights.get(`${path}.scales`)!;
  const packed = weights.get(`${path}.weight`);
  const hint = "Download the model again, or make it anew from the original.";
  if (!packed) throw new UserError(`the weights have ${path}.scales, but not ${path}.weight`, { hint });
  const [words, groups] = [packed.shape.at(-1) ?? 0, scales.shape.at(-1) ?? 0];
  const [bits, groupSize] = [(words * 32) / inputDims, inputDims / groups];
  if (scales.dtype === "uint8") {
    // Each of these has one width and group size.
    const mode = byteScaled(bits, groupSize);
    if (mode) return { groupSize, bits, mode };
  } else if (isAffine(bits, groupSize)) {
    if (weights.has(`${path}.biases`)) return { groupSize, bits, mode: "affine" };
    throw new UserError(`the weights have ${path}.scales, but not ${path}.biases`, { hint });
  }
  const scaled = scales.dtype === "uint8" ? "one-byte scales, " : "";
  throw new UserError(`${path}: no quantization has ${scaled}${bits} bits and groups of ${groupSize}`, { hint });
}
