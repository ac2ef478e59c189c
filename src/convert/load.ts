/** From a checkpoint folder to a model that is ready to run. */
import { ExitCode, isLackOfMemory, UserError } from "../errors";
import type { JsonObject } from "../json-file";
import * as mx from "../mlx";
import { architectureOf, createModel, type DraftHead, type LanguageModel, pipelineModel } from "../models";
import { placeBlocks, type QuantizationConfig, quantizeForCheckpoint, shardModel, takesBlocks } from "../nn";
import type { Tokenizer } from "../text/tokenizer";
import { warn } from "../warnings";
import { checkDtypes, checkNumbers, checkQuantization, type Whereabouts } from "./check-weights";
import type { AbsentFiles } from "./checkpoint";
import type { ModelConfig } from "./config";
import { findDraftLayers } from "./draft-layers";
import { foreignFormat, loadedConfig } from "./formats/foreign";
import { makeReady } from "./ready";
import { type CheckpointSource, openSource } from "./source";

export interface LoadOptions {
  /** Load the model's own layers for drafting too, which must be there. */
  draftHead?: boolean;
  /**
   * Keep weights of a GGUF file in its own blocks, mapped: for running on the CPU, whose kernels know them. Such layers
   * cannot be saved or trained.
   */
  inBlocks?: boolean;
  /** The processes among which the model is divided. All of them must load it. */
  group?: mx.distributed.Group;
  /** Give each of them some layers, not a part of each layer. */
  pipeline?: boolean;
  /** Headers of weight files that are missing, for other processes have the layers in them. */
  elsewhere?: AbsentFiles;
  /** What the model gets before it is made ready: adapters. */
  adapt?: (model: LanguageModel) => Promise<void>;
}

export interface LoadedModel {
  model: LanguageModel;
  /** Where asked for. */
  draftHead?: DraftHead;
  tokenizer: Tokenizer;
  config: ModelConfig;
}

/** Frees a model, and the draft layers that came with it. */
export function freeModel({ model, draftHead }: Pick<LoadedModel, "model" | "draftHead">): void {
  model.dispose();
  draftHead?.dispose();
}

/**
 * Loads model and tokenizer from a folder or a GGUF file. Weights are mapped from their files and copied to the device once.
 * @throws UserError for whatever is missing, unsound or not supported, before anything is allocated where possible
 */
export async function loadModel(path: string, options: LoadOptions = {}): Promise<LoadedModel> {
  const source = await openSource(path, options.elsewhere);
  // The tokenizer is read on another thread meanwhile.
  const reading = source.tokenizer();
  reading.catch(() => {});
  // Blocks of a GGUF file cannot be divided among processes.
  const inBlocks = mx.defaultDevice() === "cpu" && !options.group;
  const opened = await openFrom(source, path, source.config, { inBlocks, ...options });
  const { model, draftHead, config } = await ready(opened, options);
  try {
    return { model, draftHead, tokenizer: await reading, config };
  } catch (error) {
    freeModel({ model, draftHead });
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

async function ready(
  opened: OpenedWeights,
  { group, pipeline = false, adapt }: LoadOptions = {},
): Promise<OpenedWeights> {
  try {
    await adapt?.(opened.model);
    if (group) (pipeline ? pipelineModel : shardModel)(opened.model, group);
    const facts = await architectureOf(opened.config);
    for (const part of [opened.model, opened.draftHead]) {
      if (!part) continue;
      makeReady(part, facts);
      checkNumbers(part, opened.where);
    }
  } catch (error) {
    freeModel(opened);
    throw error;
  }
  return opened;
}

export interface OpenedWeights {
  model: LanguageModel;
  /** Where asked for. */
  draftHead?: DraftHead;
  /** With MLX's settings in the place of another tool's. */
  config: ModelConfig;
  /** The file that a tensor is in. */
  where: Whereabouts;
}

/** The model with weights that are read from their files when they are first needed. */
export async function openWeights(
  path: string,
  config: ModelConfig,
  options: LoadOptions = {},
): Promise<OpenedWeights> {
  return openFrom(await openSource(path), path, config, options);
}

async function openFrom(
  source: CheckpointSource,
  path: string,
  config: ModelConfig,
  options: LoadOptions,
): Promise<OpenedWeights> {
  refuseCode(config, path);
  const format = foreignFormat(config, path);
  const loaded = loadedConfig(config, format);
  const { count, read, lacking, fileOf, inBlocks } = await source.tensors();
  checkCounts(config, count, path);
  const draftLayers = options.draftHead ? await findDraftLayers(config, source.folder, path) : null;
  const model = await createModel(withOneTie(config, heads.some(fileOf)), path);
  const where = (name: string) => fileOf(name) ?? path;
  let draftHead: DraftHead | undefined;
  try {
    mx.scope(() => {
      const modules = new Map(model.namedModules());
      const own = options.inBlocks
        ? inBlocks?.((path) => modules.has(path) && takesBlocks(modules.get(path)!))
        : undefined;
      const tensors = own ? own.read() : read();
      const hasHead = tensors.has(head);
      const translated = format?.translate?.(tensors) ?? tensors;
      draftHead = draftLayers?.open(model, translated, loaded.quantization as QuantizationConfig | undefined);
      const weights = model.sanitize(translated);
      if (hasHead && !heads.some((name) => weights.has(name))) {
        for (const part of packedParts) weights.delete(part);
        if (!saysTied(config)) warnOfHead(path);
        else if (isOther(tensors.get(head)!, firstOf(weights, embeddings))) warnOfTie(path);
      }
      format?.prepare?.(model, weights);
      if (own) placeBlocks(model, own.blocks, own.dtype);
      if (loaded.quantization) {
        const quantization = withoutEntries(loaded.quantization as QuantizationConfig, own?.blocks);
        checkQuantization(model, quantization, weights, path, where);
        quantizeForCheckpoint(model, quantization, weights);
      }
      checkDtypes(model, weights, where);
      model.loadWeights(weights);
    });
  } catch (error) {
    freeModel({ model, draftHead });
    throw explained(error, path, lacking);
  }
  return { model, draftHead, config: loaded, where };
}

/** config.json's `quantization` without entries for layers that stay in blocks. */
function withoutEntries(config: QuantizationConfig, blocks?: ReadonlyMap<string, unknown>): QuantizationConfig {
  return blocks ? Object.fromEntries(Object.entries(config).filter(([path]) => !blocks.has(path))) : config;
}

/** What to say of weights that do not make a model. */
function explained(error: unknown, path: string, lacking: UserError | null): unknown {
  if (error instanceof UserError) return lacking ?? error;
  if (!(error instanceof mx.MlxError) || isLackOfMemory(error)) return error;
  return new UserError(`the weights of ${path} have shapes or dtypes that do not belong together: ${error.message}`, {
    hint: "Check that config.json and the weights belong together, or download the model again.",
    cause: error,
  });
}

const head = "lm_head.weight";

/** Names of a head and of an embedding: of a model for text, and of the language model in one for more. */
const heads = [head, `language_model.${head}`];
const embeddings = ["model.embed_tokens.weight", "language_model.model.embed_tokens.weight"];

const firstOf = (weights: ReadonlyMap<string, mx.Tensor>, names: readonly string[]) =>
  names.map((name) => weights.get(name)).find(Boolean);

/**
 * A configuration that says one thing of a head where it said two, or null. Transformers 4 went by the language model's field,
 * 5 goes by the one at the top, and checkpoints that it saves may keep the other: then the tensors tell.
 */
function withOneTie(config: ModelConfig, hasHead: boolean): ModelConfig {
  const { tie_word_embeddings: tied, text_config: text } = config;
  const inner = text as JsonObject | null | undefined;
  const own = inner?.tie_word_embeddings;
  if (tied === null && own === undefined) return { ...config, tie_word_embeddings: !hasHead };
  if (own !== null && (typeof tied !== "boolean" || typeof own !== "boolean" || tied === own)) return config;
  return { ...config, text_config: { ...inner, tie_word_embeddings: !hasHead } };
}

/** What a quantized head has beside its weight. */
const packedParts = ["lm_head.scales", "lm_head.biases"];

/** How many rows of a head are compared with the embedding: all would read both files whole. */
const comparedRows = 16;

/** Whether a head is another matrix than the embedding of the same kind. */
function isOther(weight: mx.Tensor, embedded: mx.Tensor | undefined): boolean {
  if (!embedded || embedded.dtype !== weight.dtype || embedded.shape.join() !== weight.shape.join()) return false;
  const rows = weight.dim(0);
  const chosen = Array.from({ length: comparedRows }, (_, i) => Math.floor((i * rows) / comparedRows));
  return mx.scope(
    () =>
      !mx
        .take(weight, chosen, { axis: 0 })
        .equal(mx.take(embedded, chosen, { axis: 0 }))
        .all()
        .item(),
  );
}

function warnOfTie(path: string): void {
  warn(
    `${path} has a ${head} of its own that is not used: config.json says "tie_word_embeddings": true. Where that is wrong, put false there`,
  );
}

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

/** More experts than any model has. */
const mostExperts = 2 ** 16;

/** Layers and experts are made before the weights are compared: a billion of them would never end. */
function checkCounts(config: ModelConfig, tensors: number, path: string): void {
  const { num_hidden_layers: layers, ...fields } = { ...(config.text_config as JsonObject | undefined), ...config };
  if (typeof layers === "number" && layers > tensors) {
    throw new UserError(
      `the configuration of ${path} says that there are ${layers} layers, but there are only ${tensors} tensors`,
      { hint: "Download the model again." },
    );
  }
  for (const [field, value] of Object.entries(fields)) {
    if (typeof value !== "number" || value <= mostExperts || !/experts/.test(field)) continue;
    throw new UserError(
      `config.json of ${path}: "${field}" is ${value}, more than the ${mostExperts} that a model can have`,
      {
        hint: "Download the model again.",
      },
    );
  }
}
