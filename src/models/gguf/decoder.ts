/** The facts of decoders with rotary attention and gated feed-forward blocks, which most architectures vary. */
import { isDeepStrictEqual } from "node:util";
import { z } from "zod";
import {
  type AttentionType,
  count,
  headsOf,
  layerType,
  type RopeFields,
  ropeOptions,
  size,
  slidingFields,
} from "../args";
import { parseArgs } from "../parse-args";
import { type DividedTensors, pairedRows, type TensorChanges } from "./changes";
import {
  f32,
  flag,
  type GgufDescription,
  type GgufFacts,
  type GgufField,
  type GgufFields,
  u32,
  type WrittenMetadata,
} from "./facts";
import { plainLayer, TensorNames } from "./names";
import { noPlace, readScaling, type Stretch, writeScaling } from "./rope";

/** What is read of a configuration whose gaps the model's `Args` have filled. */
const Settings = z.looseObject({
  hidden_size: size,
  num_hidden_layers: size,
  intermediate_size: count.nullish(),
  num_attention_heads: size,
  num_key_value_heads: size.nullish(),
  head_dim: size.nullish(),
  max_position_embeddings: size,
  ...slidingFields,
  // Their fields are the model's to check: some have more.
  rope_theta: z.number().positive().nullish(),
  rope_scaling: z.custom<RopeFields["rope_scaling"]>((value) => typeof value === "object").optional(),
  rope_parameters: z.custom<RopeFields["rope_parameters"]>((value) => typeof value === "object").optional(),
  layer_types: z.array(z.string()).nullish(),
});

export type DecoderSettings = z.infer<typeof Settings> & { headDim: number };

/** Metadata keys, and the fields of config.json that they are. */
type FieldNames = Readonly<Record<string, string>>;

/** The counts of routed and shared experts, and an expert's width, as DeepSeek's relatives name them. */
export const routedExperts = {
  expert_count: "n_routed_experts",
  expert_used_count: "num_experts_per_tok",
  expert_shared_count: "n_shared_experts",
  expert_feed_forward_length: "moe_intermediate_size",
} as const satisfies FieldNames;

/** The same as others name them. */
export const countedExperts = {
  expert_count: "num_experts",
  expert_used_count: "num_experts_per_tok",
  expert_shared_count: "num_shared_experts",
  expert_feed_forward_length: "moe_intermediate_size",
} as const satisfies FieldNames;

/** How many groups experts are in, and from how many of them they are chosen. */
export const expertGroups = {
  expert_group_count: "n_group",
  expert_group_used_count: "topk_group",
} as const satisfies FieldNames;

/** What differs from the plain decoder. */
export interface DecoderFacts
  extends Partial<
    Pick<
      GgufFacts,
      | "matches"
      | "names"
      | "normOffset"
      | "places"
      | "changes"
      | "joined"
      | "merged"
      | "stacked"
      | "idle"
      | "constants"
      | "numbers"
      | "layerNumbers"
      | "readsFactors"
    >
  > {
  /** Queries and keys have the rows of a head as pairs. */
  pairsRows?: boolean;
  /** Base of the rotation where the configuration says none. */
  ropeBase?: number;
  /** How many features of a head turn, where it is not all of them. */
  turning?: (settings: DecoderSettings) => number;
  /** False: positions are never stretched, whatever the configuration says. */
  stretches?: boolean;
  /** The key and the field of the norms' epsilon, where they are others. */
  epsilon?: readonly [key: string, field: string];
  /** Which layers have a window, where metadata can say it: all but every so manieth, unless they say otherwise. */
  windows?: { period: number; typeOf?: (settings: DecoderSettings, index: number) => AttentionType };
  /** Layers with a window have metadata of their own, which `write` gives. */
  hasWindows?: boolean;
  /** Whole numbers and others beside the common ones; of files that lack them nothing is read. */
  integers?: FieldNames;
  floats?: FieldNames;
  flags?: FieldNames;
  /** What fields of config.json must be, if they are anything: files have no form for other values. */
  only?: Readonly<Record<string, unknown>>;
  /**
   * Factors on the waves of the rotation, where they are the model's own, by the names of their tensors. @param usual those
   * of `turning` features
   */
  tensors?: (settings: DecoderSettings, usual: Stretch["tensors"]) => Stretch["tensors"];
  /** The common fields of a configuration that has some of them in a form of its own. */
  common?: (config: object) => object;
  /** Another architecture that files of a configuration have. */
  variant?: (settings: DecoderSettings) => string;
  /** Fields of config.json beside the common ones, or in their place. */
  read?: (file: GgufDescription, common: Readonly<Record<string, unknown>>) => Record<string, unknown>;
  /** Metadata beside the common ones, or in their place. @param config what `common` was given */
  write?: (settings: DecoderSettings, config: object) => GgufFields;
}

export function decoder(architecture: string, own: DecoderFacts = {}): GgufFacts {
  const { names = new TensorNames(plainLayer), normOffset = 0, matches } = own;
  return {
    architecture,
    matches,
    names,
    normOffset,
    places: own.places,
    joined: own.joined,
    merged: own.merged,
    stacked: own.stacked,
    idle: own.idle,
    constants: own.constants,
    numbers: own.numbers,
    layerNumbers: own.layerNumbers,
    readsFactors: own.readsFactors,
    changes(config): TensorChanges {
      const others = own.changes?.(config) ?? {};
      if (!own.pairsRows || (config as { rope_traditional?: boolean }).rope_traditional) return others;
      const { heads, kvHeads } = headsOf(config as Parameters<typeof headsOf>[0]);
      return { "self_attn.q_proj": pairedRows(heads), "self_attn.k_proj": pairedRows(kvHeads), ...others };
    },
    divided: (config) => dividedProjections(config, names),
    read(file) {
      const common = { ...readCommon(file, own), ...own.only, ...readFields(file, own) };
      return { ...common, ...own.read?.(file, common) };
    },
    write(config, source) {
      const parsed = parseArgs(Settings, { ...config, ...own.common?.(config) }, source);
      const settings = { ...parsed, headDim: headsOf(parsed).headDim };
      const { base, scaling } = ropeOptions(settings, { base: own.ropeBase ?? 10_000 });
      const stretching = own.stretches === false ? null : (scaling ?? null);
      const { fields: stretched, tensors } = writeScaling(
        stretching,
        { ...settings, headDim: own.turning?.(settings) ?? settings.headDim },
        base,
      );
      checkOnly(settings, own);
      const fields = {
        ...writeCommon(settings, own),
        "rope.freq_base": f32(base),
        ...stretched,
        ...writeWindows(settings, own),
        ...writeFields(settings, own),
        ...own.write?.(settings, config),
      };
      return {
        architecture: own.variant?.(settings),
        fields: defined(fields),
        tensors: own.tensors?.(settings, tensors) ?? tensors,
      };
    },
  };
}

/** Queries, keys and values in one tensor, as llama.cpp's converter writes them where it is asked to. */
function dividedProjections(config: object, names: TensorNames): DividedTensors {
  const places = ["attn_q", "attn_k", "attn_v"].map((name) => names.ofPart(name));
  if (!places.every((place) => place !== undefined)) return {};
  const { heads, kvHeads, headDim } = headsOf(config as Parameters<typeof headsOf>[0]);
  return { attn_qkv: { places, rows: [heads, kvHeads, kvHeads].map((count) => count * headDim) } };
}

export const defined = (fields: GgufFields): WrittenMetadata["fields"] =>
  Object.fromEntries(Object.entries(fields).filter((entry): entry is [string, GgufField] => entry[1] !== undefined));

function checkOnly(settings: Record<string, unknown>, { only = {} }: DecoderFacts): void {
  for (const [field, value] of Object.entries(only)) {
    const given = settings[field];
    if (given === undefined || given === null || isDeepStrictEqual(given, value)) continue;
    noPlace(`"${field}" ${JSON.stringify(given)} (not ${JSON.stringify(value)})`);
  }
}

const usualEpsilon = ["attention.layer_norm_rms_epsilon", "rms_norm_eps"] as const;

function writeCommon(settings: DecoderSettings, own: DecoderFacts): GgufFields {
  const { heads, kvHeads, headDim } = headsOf(settings);
  const [key, field] = own.epsilon ?? usualEpsilon;
  const width = settings.intermediate_size;
  return {
    context_length: u32(settings.max_position_embeddings),
    embedding_length: u32(settings.hidden_size),
    block_count: u32(settings.num_hidden_layers),
    feed_forward_length: width ? u32(width) : undefined,
    "rope.dimension_count": u32(own.turning?.(settings) ?? headDim),
    "attention.head_count": u32(heads),
    "attention.head_count_kv": u32(kvHeads),
    "attention.key_length": u32(headDim),
    "attention.value_length": u32(headDim),
    [key]: f32(settings[field] as number),
  };
}

function writeFields(settings: Record<string, unknown>, { integers, floats, flags }: DecoderFacts): GgufFields {
  const written = (names: FieldNames | undefined, make: (value: never) => GgufField) =>
    Object.entries(names ?? {}).map(([key, field]): [string, GgufField | undefined] => {
      const value = settings[field];
      return [key, value === undefined || value === null ? undefined : make(value as never)];
    });
  return Object.fromEntries([...written(integers, u32), ...written(floats, f32), ...written(flags, flag)]);
}

function readFields(file: GgufDescription, { integers = {}, floats = {}, flags = {} }: DecoderFacts) {
  const fields: Record<string, unknown> = {};
  const put = (field: string, value: unknown) => {
    if (value !== undefined) fields[field] = value;
  };
  for (const [key, field] of Object.entries(integers)) put(field, file.number(key));
  for (const [key, field] of Object.entries(floats)) {
    const value = file.number(key);
    put(field, value === undefined ? undefined : precise(value));
  }
  for (const [key, field] of Object.entries(flags)) {
    const value = file.list(key)?.[0];
    put(field, value === undefined ? undefined : value !== 0);
  }
  return fields;
}

function writeWindows(settings: DecoderSettings, { windows, hasWindows }: DecoderFacts): GgufFields {
  const usual = (_: unknown, index: number) => layerType(settings as Parameters<typeof layerType>[0], index);
  const typeOf = windows?.typeOf ?? usual;
  const slides = Array.from(
    { length: settings.num_hidden_layers },
    (_, index) => typeOf(settings, index) === "sliding_attention",
  );
  if (!windows) {
    if (!hasWindows && slides.includes(true)) noPlace('"layer_types" with sliding_attention');
    return {};
  }
  const { sliding_window: window } = settings;
  if (!slides.includes(true) || !window) return {};
  return { "attention.sliding_window": u32(window), "attention.sliding_window_pattern": flag(slides) };
}

/** Types of all layers, where some slide. */
function readWindows(file: GgufDescription, layers: number, period: number): Record<string, unknown> {
  const window = file.number("attention.sliding_window");
  if (!window) return {};
  const said = file.list("attention.sliding_window_pattern") ?? [period];
  const every = said.length === 1 ? said[0]! : 0;
  const slides = (index: number) => (every > 0 ? (index + 1) % every !== 0 : said[index] !== 0);
  return {
    sliding_window: window,
    layer_types: Array.from({ length: layers }, (_, i) => (slides(i) ? "sliding_attention" : "full_attention")),
  };
}

function readCommon(file: GgufDescription, own: DecoderFacts): Record<string, unknown> {
  const width = file.need("embedding_length");
  const heads = largest(file, "attention.head_count") ?? file.need("attention.head_count");
  const headDim = file.number("attention.key_length") ?? width / heads;
  const turning = file.number("rope.dimension_count") ?? headDim;
  if (turning !== headDim && !own.turning) {
    file.wrong(`${turning} of the ${headDim} features of a head turn; mlxlm needs all to`);
  }
  const embedding = file.shape("token_embd.weight") ?? file.wrong("there is no token_embd.weight");
  const [epsilonKey, epsilonField] = own.epsilon ?? usualEpsilon;
  const experts = file.number("expert_count") ?? 0;
  const expertWidth = experts > 0 ? file.number("expert_feed_forward_length") : undefined;
  // Layers that draft tokens are counted too.
  const layers = file.need("block_count") - (file.number("nextn_predict_layers") ?? 0);
  return {
    hidden_size: width,
    num_hidden_layers: layers,
    intermediate_size: largest(file, "feed_forward_length") ?? expertWidth ?? file.need("feed_forward_length"),
    num_attention_heads: heads,
    num_key_value_heads: largest(file, "attention.head_count_kv") ?? heads,
    head_dim: headDim,
    [epsilonField]: precise(file.number(epsilonKey) ?? file.need(usualEpsilon[0])),
    vocab_size: embedding[0],
    max_position_embeddings: file.need("context_length"),
    rope_theta: precise(file.number("rope.freq_base") ?? 10_000),
    rope_scaling: readScaling(file),
    ...(turning === headDim ? {} : { partial_rotary_factor: turning / headDim }),
    ...(own.windows ? readWindows(file, layers, own.windows.period) : {}),
    tie_word_embeddings: file.shape("output.weight") === undefined,
    attention_bias: ["attn_q", "attn_qkv"].some((name) => file.shape(`blk.0.${name}.bias`) !== undefined),
    mlp_bias: file.shape("blk.0.ffn_down.bias") !== undefined,
  };
}

/** A number, or the largest of those of all layers: some have none of what it counts. */
function largest(file: GgufDescription, key: string): number | undefined {
  const all = file.list(key);
  return all && all.length > 0 ? Math.max(...all) : undefined;
}

/** The number that was meant by a float32: 1e-5, not 9.999999747378752e-6. */
export const precise = (value: number): number => Number(Math.fround(value).toPrecision(7));

/** How many experts there are, and how many a token uses, by the fields' usual names. */
export const expertCounts: FieldNames = { expert_count: "num_local_experts", expert_used_count: "num_experts_per_tok" };
