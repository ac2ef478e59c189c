/** From a checkpoint folder to a model that is ready to run. */
import { ExitCode, UserError } from "../errors";
import * as mx from "../mlx";
import { createModel, type LanguageModel } from "../models";
import { type QuantizationConfig, quantizeForCheckpoint } from "../nn";
import type { Tokenizer } from "../text/tokenizer";
import { warn } from "../warnings";
import type { ModelConfig } from "./config";
import { foreignFormat, loadedConfig } from "./formats/foreign";
import type { JsonObject } from "./json-file";
import { makeReady } from "./ready";
import { type CheckpointSource, openSource } from "./source";

export interface LoadedModel {
  model: LanguageModel;
  tokenizer: Tokenizer;
  config: ModelConfig;
}

/**
 * Loads model and tokenizer from a folder or a GGUF file. Weights are mapped from their files and copied to the device once.
 * @throws UserError for whatever is missing, unsound or not supported, before anything is allocated where possible
 */
export async function loadModel(path: string): Promise<LoadedModel> {
  const source = await openSource(path);
  // The tokenizer is read on another thread meanwhile.
  const reading = source.tokenizer();
  reading.catch(() => {});
  const { model, config } = ready(await openFrom(source, path, source.config));
  try {
    return { model, tokenizer: await reading, config };
  } catch (error) {
    model.dispose();
    throw error;
  }
}

/** Architectures that need what is not here. */
function refuseCode(config: ModelConfig, path: string): void {
  if (config.model_file) {
    throw new UserError(`config.json of ${path}: "model_file" asks for Python code, which mlxlm cannot run`, {
      code: ExitCode.notFound,
      hint: "Use a checkpoint of a built-in architecture.",
    });
  }
}

/** The model without its tokenizer, ready to run. */
export async function loadWeights(path: string, config: ModelConfig): Promise<OpenedWeights> {
  return ready(await openWeights(path, config));
}

function ready(opened: OpenedWeights): OpenedWeights {
  try {
    makeReady(opened.model);
  } catch (error) {
    opened.model.dispose();
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
export async function openWeights(path: string, config: ModelConfig): Promise<OpenedWeights> {
  return openFrom(await openSource(path), path, config);
}

async function openFrom(source: CheckpointSource, path: string, config: ModelConfig): Promise<OpenedWeights> {
  refuseCode(config, path);
  const format = foreignFormat(config, path);
  const loaded = loadedConfig(config, format);
  const { count, read, lacking } = await source.tensors();
  checkLayers(config, count, path);
  const model = await createModel(config, path);
  try {
    mx.scope(() => {
      const tensors = read();
      const hasHead = tensors.has(head);
      const weights = model.sanitize(format?.translate?.(tensors) ?? tensors);
      if (hasHead && !weights.has(head) && !saysTied(config)) warnOfHead(path);
      format?.prepare?.(model, weights);
      if (loaded.quantization) quantizeForCheckpoint(model, loaded.quantization as QuantizationConfig, weights);
      model.loadWeights(weights);
    });
  } catch (error) {
    model.dispose();
    throw error instanceof UserError ? (lacking ?? error) : error;
  }
  return { model, config: loaded };
}

const head = "lm_head.weight";

/** Such checkpoints often repeat the embedding as their head. */
function saysTied({ tie_word_embeddings: tied, text_config }: ModelConfig): boolean {
  return (tied ?? (text_config as JsonObject | undefined)?.tie_word_embeddings) === true;
}

/** Some model types are tied unless config.json says otherwise, in mlx-lm too; transformers has other defaults. */
function warnOfHead(path: string): void {
  warn(
    `${path} has a ${head} that is not used: config.json has no "tie_word_embeddings", and models of its type then read the embedding in its place. Where that is wrong, put "tie_word_embeddings": false there`,
  );
}

/** Each layer is made before the weights are compared: a billion of them would never end. */
function checkLayers(config: ModelConfig, tensors: number, path: string): void {
  const { num_hidden_layers: layers } = { ...(config.text_config as JsonObject | undefined), ...config };
  if (typeof layers !== "number" || layers <= tensors) return;
  throw new UserError(
    `the configuration of ${path} says that there are ${layers} layers, but there are only ${tensors} tensors`,
    { hint: "Download the model again." },
  );
}
