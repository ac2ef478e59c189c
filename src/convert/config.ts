/** config.json, with what generation_config.json says about the end of a text. */
import { type JsonObject, readJson } from "./json-file";

export interface ModelConfig extends JsonObject {
  model_type?: unknown;
}

/**
 * Reads a checkpoint's configuration. A usable `eos_token_id` of generation_config.json takes the place of
 * config.json's; a generation_config.json that is missing or broken is passed over, as the reference does.
 * @throws UserError where config.json is missing or broken
 */
export async function readConfig(folder: string): Promise<ModelConfig> {
  const config = await readJson(folder, "config.json");
  const generation = await readJson(folder, "generation_config.json").catch(() => ({}) as JsonObject);
  const ids = generation.eos_token_id;
  // Truthy as Python means it: an empty list says nothing.
  const says = Array.isArray(ids) ? ids.length > 0 : Boolean(ids);
  return says ? { ...config, eos_token_id: ids } : config;
}

/** The ids that end a text: one, a list, or none. Anything else in the field is passed over. */
export function eosTokenIds({ eos_token_id: ids }: ModelConfig): number[] {
  return (Array.isArray(ids) ? ids : [ids]).filter((id): id is number => Number.isInteger(id));
}

/** How many tokens the model was made for, where the configuration says so. */
export function contextLength(config: ModelConfig): number | null {
  const inner = config.text_config as JsonObject | undefined;
  const length = config.max_position_embeddings ?? inner?.max_position_embeddings;
  return typeof length === "number" && length > 0 ? length : null;
}
