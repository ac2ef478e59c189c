/** config.json, with what generation_config.json says about the end of a text. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { type JsonObject, readJson } from "../json-file";
import { architectureOf } from "../models/registry";
import type { LoadOptions } from "../text/tokenizer";

export interface ModelConfig extends JsonObject {
  model_type?: unknown;
}

/**
 * Reads the configuration of a folder. A usable `eos_token_id` of generation_config.json takes the place of
 * config.json's; a generation_config.json that is missing or broken is passed over, as the reference does. Settings of
 * another tool's quantization may stand further inside, or in a file of their own.
 * @throws UserError where config.json is missing or broken
 */
export async function readFolderConfig(folder: string): Promise<ModelConfig> {
  const config = await readJson(folder, "config.json");
  const settings = config.quantization_config ?? (await foreignSettings(folder, config));
  if (settings) config.quantization_config = settings;
  const generation = await readJson(folder, "generation_config.json").catch(() => ({}) as JsonObject);
  const ids = generation.eos_token_id;
  // Truthy as Python means it: an empty list says nothing.
  const says = Array.isArray(ids) ? ids.length > 0 : Boolean(ids);
  return says ? { ...config, eos_token_id: ids } : config;
}

async function foreignSettings(folder: string, { text_config }: ModelConfig): Promise<unknown> {
  const inner = (text_config as JsonObject | null | undefined)?.quantization_config;
  if (inner) return inner;
  // NVIDIA's ModelOpt writes this file.
  const own = "hf_quant_config.json";
  return existsSync(join(folder, own)) ? { quant_method: "modelopt", ...(await readJson(folder, own)) } : undefined;
}

/** The ids that end a text: one, a list, or none. Anything else in the field is passed over. */
export function eosTokenIds({ eos_token_id: ids }: ModelConfig): number[] {
  return (Array.isArray(ids) ? ids : [ids]).filter((id): id is number => Number.isInteger(id));
}

/** How the tokenizer of a model is loaded: its architecture has a say where the checkpoint has none. */
export async function tokenizerOptions(config: ModelConfig): Promise<LoadOptions> {
  // A type that is not supported is told where the model is made.
  const { tokenizer: defaults } = await architectureOf(config).catch(() => ({ tokenizer: undefined }));
  const ids = eosTokenIds(config);
  return { eosTokenIds: ids.length > 0 ? ids : defaults?.eos_token_ids, defaults };
}

/** How many tokens the model was made for, where the configuration says so. */
export function contextLength(config: ModelConfig): number | null {
  const inner = config.text_config as JsonObject | undefined;
  const length = config.max_position_embeddings ?? inner?.max_position_embeddings;
  return typeof length === "number" && length > 0 ? length : null;
}
