/** The facts of decoders with rotary attention and gated feed-forward blocks, which most architectures vary. */
import { z } from "zod";
import { count, headsOf, layerType, ropeFields, ropeOptions, size, slidingFields } from "../args";
import { parseArgs } from "../parse-args";
import { pairedRows, type TensorChanges } from "./changes";
import {
  f32,
  type GgufDescription,
  type GgufFacts,
  type GgufField,
  type GgufFields,
  u32,
  type WrittenMetadata,
} from "./facts";
import { plainLayer, TensorNames } from "./names";
import { noPlace, readScaling, writeScaling } from "./rope";

/** What is read of a configuration whose gaps the model's `Args` have filled. */
const Settings = z.looseObject({
  hidden_size: size,
  num_hidden_layers: size,
  intermediate_size: size,
  num_attention_heads: size,
  num_key_value_heads: size.nullish(),
  head_dim: size.nullish(),
  rms_norm_eps: z.number(),
  max_position_embeddings: size,
  ...ropeFields,
  ...slidingFields,
  num_local_experts: count.nullish(),
  num_experts_per_tok: count.nullish(),
});

export type DecoderSettings = z.infer<typeof Settings> & { headDim: number };

/** What differs from the plain decoder. */
export interface DecoderFacts
  extends Partial<Pick<GgufFacts, "matches" | "names" | "normOffset" | "changes" | "joined">> {
  /** Queries and keys have the rows of a head as pairs. */
  pairsRows?: boolean;
  /** Base of the rotation where the configuration says none. */
  ropeBase?: number;
  /** How many features of a head turn, where it is not all of them. */
  turning?: (settings: DecoderSettings) => number;
  /** False: positions are never stretched, whatever the configuration says. */
  stretches?: boolean;
  /** Layers with a window have metadata of their own, which `write` gives. */
  hasWindows?: boolean;
  /** Fields of config.json beside the common ones, or in their place. */
  read?: (file: GgufDescription, common: Readonly<Record<string, unknown>>) => Record<string, unknown>;
  /** Metadata beside the common ones, or in their place. */
  write?: (settings: DecoderSettings) => GgufFields;
}

export function decoder(architecture: string, own: DecoderFacts = {}): GgufFacts {
  const { names = new TensorNames(plainLayer), normOffset = 0, matches } = own;
  return {
    architecture,
    matches,
    names,
    normOffset,
    joined: own.joined,
    changes(config): TensorChanges {
      const others = own.changes?.(config) ?? {};
      if (!own.pairsRows || (config as { rope_traditional?: boolean }).rope_traditional) return others;
      const { heads, kvHeads } = headsOf(config as Parameters<typeof headsOf>[0]);
      return { "self_attn.q_proj": pairedRows(heads), "self_attn.k_proj": pairedRows(kvHeads), ...others };
    },
    read(file) {
      const common = readCommon(file, own.turning !== undefined);
      return { ...common, ...own.read?.(file, common) };
    },
    write(config, source) {
      const parsed = parseArgs(Settings, config, source);
      const { heads, kvHeads, headDim } = headsOf(parsed);
      const { base, scaling } = ropeOptions(parsed, { base: own.ropeBase ?? 10_000 });
      const stretching = own.stretches === false ? null : (scaling ?? null);
      const { fields: stretched, ropeFactors } = writeScaling(stretching, headDim, base);
      if (!own.hasWindows && slides(parsed)) noPlace('"layer_types" with sliding_attention');
      const { num_local_experts: experts, num_experts_per_tok: used } = parsed;
      const fields: GgufFields = {
        context_length: u32(parsed.max_position_embeddings),
        embedding_length: u32(parsed.hidden_size),
        block_count: u32(parsed.num_hidden_layers),
        feed_forward_length: u32(parsed.intermediate_size),
        "rope.dimension_count": u32(own.turning?.({ ...parsed, headDim }) ?? headDim),
        "attention.head_count": u32(heads),
        "attention.head_count_kv": u32(kvHeads),
        "attention.key_length": u32(headDim),
        "attention.value_length": u32(headDim),
        "attention.layer_norm_rms_epsilon": f32(parsed.rms_norm_eps),
        "rope.freq_base": f32(base),
        expert_count: experts ? u32(experts) : undefined,
        expert_used_count: used ? u32(used) : undefined,
        ...stretched,
        ...own.write?.({ ...parsed, headDim }),
      };
      return { fields: defined(fields), ropeFactors };
    },
  };
}

const defined = (fields: GgufFields): WrittenMetadata["fields"] =>
  Object.fromEntries(Object.entries(fields).filter((entry): entry is [string, GgufField] => entry[1] !== undefined));

const slides = (settings: z.infer<typeof Settings>) =>
  Array.from({ length: settings.num_hidden_layers }, (_, index) => layerType(settings, index)).includes(
    "sliding_attention",
  );

function readCommon(file: GgufDescription, mayTurnInPart: boolean): Record<string, unknown> {
  const width = file.need("embedding_length");
  const heads = file.need("attention.head_count");
  const headDim = file.number("attention.key_length") ?? width / heads;
  const turning = file.number("rope.dimension_count") ?? headDim;
  if (turning !== headDim && !mayTurnInPart)
    file.wrong(`${turning} of the ${headDim} features of a head turn; mlxlm needs all to`);
  const embedding = file.shape("token_embd.weight") ?? file.wrong("there is no token_embd.weight");
  const experts = file.number("expert_count") ?? 0;
  const expertWidth = experts > 0 ? file.number("expert_feed_forward_length") : undefined;
  return {
    hidden_size: width,
    // Layers that draft tokens are counted too.
    num_hidden_layers: file.need("block_count") - (file.number("nextn_predict_layers") ?? 0),
    intermediate_size: file.number("feed_forward_length") ?? expertWidth ?? file.need("feed_forward_length"),
    num_attention_heads: heads,
    num_key_value_heads: file.number("attention.head_count_kv") ?? heads,
    head_dim: headDim,
    rms_norm_eps: precise(file.need("attention.layer_norm_rms_epsilon")),
    vocab_size: embedding[0],
    max_position_embeddings: file.need("context_length"),
    rope_theta: precise(file.number("rope.freq_base") ?? 10_000),
    rope_scaling: readScaling(file),
    ...(turning === headDim ? {} : { partial_rotary_factor: turning / headDim }),
    tie_word_embeddings: file.shape("output.weight") === undefined,
    attention_bias: file.shape("blk.0.attn_q.bias") !== undefined,
    mlp_bias: file.shape("blk.0.ffn_down.bias") !== undefined,
    ...(experts > 0 ? { num_local_experts: experts, num_experts_per_tok: file.need("expert_used_count") } : {}),
  };
}

/** The number that was meant by a float32: 1e-5, not 9.999999747378752e-6. */
export const precise = (value: number): number => Number(Math.fround(value).toPrecision(7));
