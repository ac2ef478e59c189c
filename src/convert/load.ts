/** From a checkpoint folder to a model that is ready to run. */
import { ExitCode, UserError } from "../errors";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { createModel, type LanguageModel } from "../models";
import { fuseProjections, holdTransposes, type QuantizationConfig, quantizeForCheckpoint } from "../nn";
import { loadTokenizer, type Tokenizer } from "../text/tokenizer";
import { openCheckpoint, type Shard } from "./checkpoint";
import { eosTokenIds, type ModelConfig, readConfig } from "./config";

export interface LoadedModel {
  model: LanguageModel;
  tokenizer: Tokenizer;
  config: ModelConfig;
}

/**
 * Loads model and tokenizer. Weights are mapped from their files and copied to the device once.
 * @throws UserError for whatever is missing, unsound or not supported, before anything is allocated where possible
 */
export async function loadModel(folder: string): Promise<LoadedModel> {
  const config = await readConfig(folder);
  // The tokenizer is read on another thread meanwhile.
  const reading = loadTokenizer(folder, { eosTokenIds: eosTokenIds(config) });
  reading.catch(() => {});
  const model = await loadWeights(folder, config);
  try {
    return { model, tokenizer: await reading, config };
  } catch (error) {
    model.dispose();
    throw error;
  }
}

/** Formats that need what is not here. */
function refuseForeign(config: ModelConfig, folder: string): void {
  if (config.model_file) {
    throw new UserError(`config.json of ${folder}: "model_file" asks for Python code, which mlxlm cannot run`, {
      code: ExitCode.notFound,
      hint: "Use a checkpoint of a built-in architecture.",
    });
  }
  const foreign = config.quantization_config as { quant_method?: unknown } | undefined;
  if (foreign && !config.quantization) {
    throw new UserError(
      `the weights of ${folder} are quantized by "${foreign.quant_method ?? "another tool"}", which mlxlm does not read yet`,
      {
        code: ExitCode.notFound,
        hint: "Take the model's original weights, or a version quantized for MLX.",
      },
    );
  }
}

/** The model alone, its weights on the device. */
export async function loadWeights(folder: string, config: ModelConfig): Promise<LanguageModel> {
  const model = await openWeights(folder, config);
  try {
    fuseProjections(model);
    holdTransposes(model);
    mx.eval(model.parameters());
    mx.clearCache();
  } catch (error) {
    model.dispose();
    throw error;
  }
  return model;
}

/** The model with weights that are read from their files when they are first needed. */
export async function openWeights(folder: string, config: ModelConfig): Promise<LanguageModel> {
  refuseForeign(config, folder);
  const shards = await openCheckpoint(folder);
  const model = await createModel(config, folder);
  try {
    mx.scope(() => {
      const weights = model.sanitize(tensorsOf(shards));
      if (config.quantization) quantizeForCheckpoint(model, config.quantization as QuantizationConfig, weights);
      model.loadWeights(weights);
    });
  } catch (error) {
    model.dispose();
    throw error;
  }
  return model;
}

function tensorsOf(shards: readonly Shard[]): Map<string, Tensor> {
  return new Map(shards.flatMap(({ path }) => [...mx.loadSafetensors(path).arrays]));
}
