/** What a model's configuration comes to in a GGUF file: metadata, and how weights change. */
import { ExitCode, UserError } from "../../errors";
import type { Tensor } from "../../mlx";
import { architecture, type GgufFacts, type GgufField, modelTypesWith } from "../../models";
import { parseArgs } from "../../models/parse-args";
import type { ModelConfig } from "../config";

export interface ExportPlan {
  facts: GgufFacts;
  /** The architecture's metadata. */
  fields: [string, GgufField][];
  /** How many times longer the waves of the rotation become. */
  ropeFactors: number[] | null;
  /** A parameter as the file has it, lazily. */
  change: (name: string, weight: Tensor) => Tensor;
}

/** @throws UserError for a model type, or a setting of one, that GGUF has no form for */
export async function exportPlan(config: ModelConfig, folder: string): Promise<ExportPlan> {
  const type = config.model_type as string;
  const { Args, gguf: facts } = await architecture(type);
  if (!facts) {
    throw new UserError(`models of type "${type}" cannot be saved as GGUF`, {
      code: ExitCode.notFound,
      hint: `Those that can: ${(await modelTypesWith("gguf")).join(", ")}`,
    });
  }
  const settings = { ...config, ...(parseArgs(Args, config, folder) as object) };
  const { fields, ropeFactors } = facts.write(settings, folder);
  const pairs = facts.pairedRows?.(settings) ?? {};
  return {
    facts,
    fields: Object.entries(fields).map(([key, field]) => [`${facts.architecture}.${key}`, field]),
    ropeFactors,
    change(parameter, weight) {
      const layer = parameter.split(".").at(-2)!;
      if (facts.normOffset && layer.endsWith("norm")) return weight.astype("float32").add(facts.normOffset);
      return Object.hasOwn(pairs, layer) ? pairUp(weight, pairs[layer]!) : weight;
    },
  };
}

/** Rows of each head from halves to pairs (0, D/2, 1, D/2 + 1, …); a bias's numbers too. */
function pairUp(x: Tensor, heads: number): Tensor {
  const [rows, ...rest] = x.shape as [number, ...number[]];
  return x
    .reshape(heads, 2, rows / heads / 2, ...rest)
    .swapaxes(1, 2)
    .reshape(rows, ...rest);
}
