/** Containers of weights that MLX has a form for already: compressed-tensors and NVIDIA's ModelOpt. */
import { ExitCode, UserError } from "../../errors";
import type { JsonObject } from "../../json-file";
import type { Tensor } from "../../mlx";
import type { ForeignFormat, QuantizationSettings } from "./format";

const original = "Take the model's original weights in bfloat16, or a version quantized for MLX.";

const forms: Record<string, ForeignFormat> = {
  "nvfp4-pack-quantized": { quantization: { group_size: 16, bits: 4, mode: "nvfp4" } },
  "mxfp4-pack-quantized": { quantization: { group_size: 32, bits: 4, mode: "mxfp4" } },
  "pack-quantized": { quantization: { group_size: 32, bits: 4, mode: "affine" }, translate: renameIntegers },
};

const refuse = (problem: string): never => {
  throw new UserError(problem, { code: ExitCode.notFound, hint: original });
};

/** @throws UserError for a format of the container that MLX has no form for */
export function compressedTensors({ format, config_groups }: QuantizationSettings, folder: string): ForeignFormat {
  const form = typeof format === "string" && Object.hasOwn(forms, format) ? forms[format] : undefined;
  if (!form) return refuse(`${folder} is in the compressed-tensors format ${JSON.stringify(format)}, which MLX lacks`);
  for (const group of Object.values((config_groups ?? {}) as JsonObject)) {
    const { num_bits: bits = 4, symmetric = true } = ((group as JsonObject | null)?.weights ?? {}) as JsonObject;
    if (bits !== 4 || symmetric !== true) {
      refuse(`${folder} holds ${symmetric ? "" : "asymmetric "}weights of ${bits} bits; mlxlm reads 4, symmetric`);
    }
  }
  return form;
}

/** hf_quant_config.json nests the settings, config.json does not. @throws UserError for another algorithm than NVFP4 */
export function modelopt(settings: QuantizationSettings, folder: string): ForeignFormat {
  const { quantization: nested = settings } = settings;
  const { quant_algo: algorithm, group_size: groupSize = 16 } = (nested ?? {}) as JsonObject;
  if (algorithm !== "NVFP4") {
    refuse(`${folder} is quantized by ModelOpt's ${JSON.stringify(algorithm)}; mlxlm reads NVFP4`);
  }
  return { quantization: { group_size: groupSize as number, bits: 4, mode: "nvfp4" } };
}

/** Symmetric four-bit integers: the words are MLX's, their zero is 8. */
function renameIntegers(weights: Map<string, Tensor>): Map<string, Tensor> {
  const renamed = new Map<string, Tensor>();
  for (const [name, tensor] of weights) {
    const path = name.replace(/\.weight_(packed|scale|shape|zero_point|g_idx)$/, "");
    const scales = weights.get(`${path}.weight_scale`);
    if (path === name || !scales || !weights.has(`${path}.weight_packed`)) {
      renamed.set(name, tensor);
    } else if (/_(zero_point|g_idx)$/.test(name)) {
      refuse(`the layer ${path} has ${name.slice(path.length + 1)}: mlxlm reads symmetric groups in order`);
    } else if (name.endsWith("_packed")) {
      renamed.set(`${path}.weight`, tensor.view("uint32"));
      renamed.set(`${path}.scales`, scales);
      renamed.set(`${path}.biases`, scales.multiply(-8));
    }
  }
  return renamed;
}
