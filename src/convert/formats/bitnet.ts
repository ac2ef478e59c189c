/** Checkpoints of ternary weights, four to a byte. */
import type { Tensor } from "../../mlx";
import type { LanguageModel } from "../../models";
import { BitLinear, Linear } from "../../nn";
import type { ForeignFormat, QuantizationSettings } from "./format";

/** Linear layers that the checkpoint has ternary weights for become `BitLinear`. */
export function bitnet({ linear_class: kind }: QuantizationSettings): ForeignFormat {
  return {
    prepare(model: LanguageModel, weights: ReadonlyMap<string, Tensor>) {
      for (const [path, layer] of model.namedModules()) {
        if (!(layer instanceof Linear) || !weights.has(`${path}.weight_scale`)) continue;
        const [outputDims, inputDims] = layer.weight.shape as [number, number];
        const bias = layer.bias !== undefined;
        model.replace(path, new BitLinear(inputDims, outputDims, { bias, divides: kind !== "autobitlinear" }));
        layer.dispose();
      }
    },
  };
}
