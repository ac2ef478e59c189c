/** A model whose weights are a formula of their names, as the oracle's is. */
import type { Dtype, Tensor } from "../../src/mlx";
import * as mx from "../../src/mlx";
import type { LanguageModel } from "../../src/models";
import { architecture } from "../../src/models/registry";
import { weight } from "./weights";

export interface FormulaModel {
  config: { model_type: string; [key: string]: unknown };
  salt: number;
  /** The checkpoint's tensor names and shapes. */
  weights: Record<string, number[]>;
}

export async function formulaModel({ config, weights: shapes, salt }: FormulaModel, dtype: Dtype = "float32") {
  const { Args, Model } = await architecture(config.model_type);
  const model: LanguageModel = new Model(Args.parse(config));
  mx.scope(() => {
    const checkpoint = new Map(
      Object.entries(shapes).map(([name, shape]): [string, Tensor] => [
        name,
        mx.array(weight(name, shape, salt), "float32", shape),
      ]),
    );
    const weights = [...model.sanitize(checkpoint)].map(([name, x]) => [name, x.astype(dtype)] as const);
    model.loadWeights(weights, { strict: true });
  });
  mx.eval(model.parameters());
  return model;
}
