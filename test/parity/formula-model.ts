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

/** The checkpoint's tensors. They belong to the current scope. */
export const formulaTensors = ({ weights, salt }: FormulaModel): Map<string, Tensor> =>
  new Map(
    Object.entries(weights).map(([name, shape]) => [name, mx.array(weight(name, shape, salt), "float32", shape)]),
  );

export async function formulaModel(of: FormulaModel, dtype: Dtype = "float32") {
  const { Args, Model } = await architecture(of.config.model_type);
  const model: LanguageModel = new Model(Args.parse(of.config));
  mx.scope(() => {
    const cast = (x: Tensor) => (mx.isFloating(x.dtype) ? x.astype(dtype) : x);
    const weights = [...model.sanitize(formulaTensors(of))].map(([name, x]) => [name, cast(x)] as const);
    model.loadWeights(weights, { strict: true });
  });
  mx.eval(model.parameters());
  return model;
}
