/** Adapters with random factors, as folders. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import * as mx from "../src/mlx";
import type { LanguageModel } from "../src/models";
import { writeAdapterConfig, writeAdapterWeights } from "../src/tune/adapter-files";
import { linearToLora, trainableParameters } from "../src/tune/linear-to-lora";

export interface RandomAdapter {
  rank: number;
  seed: number;
  scale?: number;
  /** Paths of layers; all of the blocks' unless given. */
  keys?: string[];
  numLayers?: number;
  dora?: boolean;
  /** Standard deviation of the factors. */
  spread?: number;
}

/** Writes an adapter for a model, which it takes and disposes of. */
export async function randomAdapter(folder: string, model: LanguageModel, options: RandomAdapter): Promise<string> {
  const { rank, seed, scale = 2, keys, numLayers = -1, dora = false, spread = 0.3 } = options;
  await mkdir(folder, { recursive: true });
  model.freeze();
  linearToLora(model, numLayers, { rank, scale, dropout: 0, keys, dora });
  mx.random.seed(seed);
  const weights = mx.scope(() =>
    trainableParameters(model).map(([name, own]) => {
      // The lengths of DoRA's rows stay near those of the base.
      const drawn = mx.random.normal({ shape: own.shape }).multiply(spread);
      return [name, name.endsWith(".m") ? own.multiply(drawn.add(1)) : drawn] as const;
    }),
  );
  await writeAdapterWeights(join(folder, "adapters.safetensors"), weights);
  for (const [, tensor] of weights) tensor.dispose();
  await writeAdapterConfig(folder, {
    fine_tune_type: dora ? "dora" : "lora",
    num_layers: numLayers,
    lora_parameters: { rank, scale, dropout: 0, ...(keys && { keys }) },
  });
  model.dispose();
  return folder;
}
