/** From a checkpoint folder to a model that is ready to run. */
import { ExitCode, UserError } from "../errors";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { createModel, type LanguageModel } from "../models";
import { type QuantizationConfig, quantizeForCheckpoint } from "../nn";
import { loadTokenizer, type Tokenizer } from "../text/tokenizer";
import { openCheckpoint } from "./checkpoint";
import { eosTokenIds, type ModelConfig, readConfig } from "./config";
import { foreignFormat, loadedConfig } from "./formats/foreign";
import { withTokenizerFolder } from "./gguf/folder";
import { ggufTensors, isGguf, openGguf } from "./gguf/weights";
import type { JsonObject } from "./json-file";
import { makeReady } from "./ready";

export interface LoadedModel {
  model: LanguageModel;
  tokenizer: Tokenizer;
  config: ModelConfig;
}

/**
 * Loads model and tokenizer from a folder or a GGUF file. Weights are mapped from their files and copied to the device once.
 * @throws UserError for whatever is missing, unsound or not supported, before anything is allocated where possible
 */
export async function loadModel(folder: string): Promise<LoadedModel> {
  const config = await readConfig(folder);
  // The tokenizer is read on another thread meanwhile.
  const reading = openTokenizer(folder, config);
  reading.catch(() => {});
  const { model, config: loaded } = await loadWeights(folder, config);
  try {
    return { model, tokenizer: await reading, config: loaded };
  } catch (error) {
    model.dispose();
    throw error;
  }
}

function openTokenizer(path: string, config: ModelConfig): Promise<Tokenizer> {
  const load = (folder: string) => loadTokenizer(folder, { eosTokenIds: eosTokenIds(config) });
  return isGguf(path) ? openGguf(path).then((file) => withTokenizerFolder(file, load)) : load(path);
}

/** Architectures that need what is not here. */
function refuseCode(config: ModelConfig, folder: string): void {
  if (config.model_file) {
    throw new UserError(`config.json of ${folder}: "model_file" asks for Python code, which mlxlm cannot run`, {
      code: ExitCode.notFound,
      hint: "Use a checkpoint of a built-in architecture.",
    });
  }
}

/** The model without its tokenizer, its weights on the device. */
export async function loadWeights(folder: string, config: ModelConfig): Promise<OpenedWeights> {
  const opened = await openWeights(folder, config);
  const { model } = opened;
  try {
    makeReady(model);
  } catch (error) {
    model.dispose();
    throw error;
  }
  return opened;
}

export interface OpenedWeights {
  model: LanguageModel;
  /** With MLX's settings in the place of another tool's. */
  config: ModelConfig;
}

/** The model with weights that are read from their files when they are first needed. */
export async function openWeights(folder: string, config: ModelConfig): Promise<OpenedWeights> {
  refuseCode(config, folder);
  const format = foreignFormat(config, folder);
  const loaded = loadedConfig(config, format);
  const { count, read } = await tensorReader(folder);
  checkLayers(config, count, folder);
  const model = await createModel(config, folder);
  try {
    mx.scope(() => {
      const tensors = read();
      const weights = model.sanitize(format?.translate?.(tensors) ?? tensors);
      format?.prepare?.(model, weights);
      if (loaded.quantization) quantizeForCheckpoint(model, loaded.quantization as QuantizationConfig, weights);
      model.loadWeights(weights);
    });
  } catch (error) {
    model.dispose();
    throw error;
  }
  return { model, config: loaded };
}

/** Each layer is made before the weights are compared: a billion of them would never end. */
function checkLayers(config: ModelConfig, tensors: number, source: string): void {
  const { num_hidden_layers: layers } = { ...(config.text_config as JsonObject | undefined), ...config };
  if (typeof layers !== "number" || layers <= tensors) return;
  throw new UserError(
    `the configuration of ${source} says that there are ${layers} layers, but there are only ${tensors} tensors`,
    { hint: "Download the model again." },
  );
}

interface TensorReader {
  count: number;
  /** Those of safetensors are read when they are first needed. */
  read: () => Map<string, Tensor>;
}

/** Checks the weight files. */
async function tensorReader(path: string): Promise<TensorReader> {
  if (isGguf(path)) {
    const file = await openGguf(path);
    return { count: file.header.tensors.size, read: () => ggufTensors(file) };
  }
  const shards = await openCheckpoint(path);
  return {
    count: shards.reduce((sum, { header }) => sum + header.tensors.size, 0),
    read: () => new Map(shards.flatMap(({ path }) => [...mx.loadSafetensors(path).arrays])),
  };
}
