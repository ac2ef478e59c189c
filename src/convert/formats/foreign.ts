/** Checkpoints that other tools quantized, by the method that their configuration names. */
import { ExitCode, UserError } from "../../errors";
import type { ModelConfig } from "../config";
import { awqOrGptq } from "./awq";
import { bitnet } from "./bitnet";
import type { ForeignFormat, QuantizationSettings } from "./format";
import { fp8 } from "./fp8";
import { compressedTensors, modelopt } from "./packed";

type Reader = (settings: QuantizationSettings, folder: string) => ForeignFormat;

const readers: Record<string, Reader> = {
  awq: awqOrGptq,
  gptq: awqOrGptq,
  bitnet,
  "compressed-tensors": compressedTensors,
  fp8,
  modelopt,
  mxfp4: () => ({ quantization: { group_size: 32, bits: 4, mode: "mxfp4" } }),
  mxfp8: () => ({ quantization: { group_size: 32, bits: 8, mode: "mxfp8" } }),
};

/**
 * The format of a checkpoint whose configuration has the settings of another tool; null where it has MLX's or none.
 * @throws UserError for a method, or settings of one, that cannot be read
 */
export function foreignFormat(config: ModelConfig, folder: string): ForeignFormat | null {
  const settings = config.quantization_config as QuantizationSettings | null | undefined;
  if (!settings || config.quantization || Object.keys(settings).length === 0) return null;
  const method = settings.quant_method;
  if (typeof method === "string" && Object.hasOwn(readers, method)) return readers[method]!(settings, folder);
  throw new UserError(
    `the weights of ${folder} are quantized by "${method ?? "another tool"}", which mlxlm does not read`,
    {
      code: ExitCode.notFound,
      hint: "Take the model's original weights, or a version quantized for MLX.",
    },
  );
}

/** The configuration of the model as it was loaded: with MLX's settings in the place of the tool's. */
export function loadedConfig(config: ModelConfig, format: ForeignFormat | null): ModelConfig {
  if (!format || format.prepare) return config;
  const { quantization_config: _, ...rest } = config;
  const { quantization } = format;
  return quantization ? { ...rest, quantization, quantization_config: quantization } : rest;
}
