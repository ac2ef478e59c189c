/** Recipes of mixed precision: more bits where a model feels it most. */
import { ExitCode, UserError } from "../errors";
import type { QuantizationMode } from "../mlx";
import type { LanguageModel } from "../models";

export const recipeNames = ["mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6"] as const;

export type RecipeName = (typeof recipeNames)[number];

/** A layer's entry in config.json; null means MLX's default. */
export interface LayerQuantization {
  group_size: number | null;
  bits: number;
  /** affine unless said */
  mode?: QuantizationMode;
}

/**
 * The first and last eighth of the layers, and every third between, keep more bits in what makes values and ends the
 * MLP; the head does so always. After llama.cpp's Q4_K_M.
 * @throws UserError for a model without `down_proj`
 */
export function recipe(
  name: RecipeName,
  model: LanguageModel,
  groupSize: number | null,
): (path: string) => LayerQuantization {
  const [low, high] = name.match(/\d/g)!.map(Number) as [number, number];
  const down = model.namedModules().find(([path]) => path.includes("down_proj"));
  if (!down) {
    throw new UserError(`${name} needs a model with down_proj layers, and this one has none`, {
      code: ExitCode.usage,
      hint: "Quantize without --quant-predicate.",
    });
  }
  const place = down[0].split(".").findIndex((part) => /^\d+$/.test(part));
  const count = model.layers.length;
  const eighth = Math.floor(count / 8);
  const isSensitive = (index: number) =>
    index < eighth || index >= Math.floor((7 * count) / 8) || (index - eighth) % 3 === 2;

  return (path) => {
    const index = Number(path.split(".")[place] ?? 0);
    const sensitive =
      isSensitive(index) && ["v_proj", "v_a_proj", "v_b_proj", "down_proj"].some((p) => path.includes(p));
    const bits = sensitive || path.includes("lm_head") ? high : low;
    return { group_size: groupSize, bits, mode: "affine" };
  };
}
