/** Fields of config.json that transformers 5 writes otherwise than the programs that models were published with. */
type Fields = Record<string, unknown>;

const isObject = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** What stands in one set of rotary settings, and stood beside it. */
const ofRope = ["rope_theta", "partial_rotary_factor"] as const;

/** Two names of one field: which of them a file has depends on the program that wrote it. */
const synonyms = [
  ["num_experts", "num_local_experts"],
  ["rotary_pct", "partial_rotary_factor"],
  ["rotary_emb_base", "rope_theta"],
] as const;

/** How many layers come before those with experts; undefined where layers of both kinds take turns. */
function denseFirst(types: unknown): number | undefined {
  if (!Array.isArray(types)) return undefined;
  const dense = types.findIndex((type) => type !== "dense");
  const count = dense < 0 ? types.length : dense;
  return types.slice(count).every((type) => type === "sparse") ? count : undefined;
}

/** What Gemma 4's layers of full attention have of their own, where it is the same for all of them. */
function ofFullLayers(layers: unknown): Fields {
  const [first, ...others] = isObject(layers) ? Object.values(layers) : [];
  if (!isObject(first) || others.some((other) => !Bun.deepEquals(other, first))) return {};
  return { global_head_dim: first.head_dim, num_global_key_value_heads: first.num_key_value_heads };
}

/**
 * The configuration with the older fields beside the newer ones, where it has only those; of a language model under
 * `text_config` too. What a file says by both names stays as it is.
 */
export function withOlderFields(config: Fields): Fields {
  const older: Fields = {};
  const add = (name: string, value: unknown) => {
    if ((config[name] ?? null) === null && value !== undefined && value !== null) older[name] = value;
  };
  const { rope_parameters: rope, text_config: text } = config;
  if (isObject(rope) && !Object.values(rope).some(isObject)) for (const name of ofRope) add(name, rope[name]);
  for (const [one, other] of synonyms) {
    add(one, config[other] ?? older[other]);
    add(other, config[one] ?? older[one]);
  }
  add("first_k_dense_replace", denseFirst(config.mlp_layer_types));
  for (const [name, value] of Object.entries(ofFullLayers(config.per_layer_config))) add(name, value);
  // Qwen's files say so that no layer has a window.
  if (config.sliding_window === 0) older.sliding_window = null;
  if (isObject(text)) older.text_config = withOlderFields(text);
  return { ...config, ...older };
}
