/** What a checkpoint that another tool quantized needs to become MLX's. */

import type { JsonObject } from "../../json-file";
import type { Tensor } from "../../mlx";
import type { LanguageModel } from "../../models";
import type { QuantizationConfig } from "../../nn";

/** config.json's `quantization_config`, as the tool wrote it. */
export interface QuantizationSettings extends JsonObject {
  quant_method?: unknown;
}

/** What is done with a checkpoint of one such tool. */
export interface ForeignFormat {
  /** Gives the checkpoint's tensors MLX's form and names, lazily. Comes before the model's own `sanitize`. */
  translate?: (weights: Map<string, Tensor>) => Map<string, Tensor>;
  /** Puts layers that hold such weights into the model. */
  prepare?: (model: LanguageModel, weights: ReadonlyMap<string, Tensor>) => void;
  /** What config.json's `quantization` says from here on. */
  quantization?: QuantizationConfig;
}
