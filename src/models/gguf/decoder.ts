/** The facts of decoders with rotary attention and gated feed-forward blocks, which most architectures vary. */
import { z } from "zod";
import { headsOf, layerType, ropeFields, ropeOptions, size, slidingFields } from "../args";
import { parseArgs } from "../parse-args";
import type { GgufDescription, GgufFacts, GgufField } from "./facts";
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
  num_local_experts: size.nullish(),
  num_experts_per_tok: size.nullish(),
});

export type DecoderSettings = z.infer<typeof Settings> & { headDim: number };

/** What differs from the plain decoder. */
export interface DecoderFacts extends Partial<Pick<GgufFacts, "matches" | "names" | "normOffset">> {
  /** Queries and keys have the rows of a head as pairs. */
  pairsRows?: boolean;
  /** Base of the rotation where the configuration says none. */
  ropeBase?: number;
  /** False: positions are never stretched, whatever the configuration says. */
  stretches?: boolean;
  /** Layers with a window have metadata of their own, which `write` gives. */
  hasWindows?: boolean;
  /** Fields of config.json beside the common ones, or in their place. */
  read?: (file: GgufDescription) => Record<string, unknown>;
  /** Metadata beside the common ones, or in their place. */
  write?: (settings: DecoderSettings) => Record<string, GgufField>;
}

export function decoder(architecture: string, own: DecoderFacts = {}): GgufFacts {
  const { names = new TensorNames(plainLayer), normOffset = 0, matches } = own;
  return {
    architecture,
    matches,
    names,
    normOffset,
    pairedRows(config): Record<string, number> {
      if (!own.pairsRows || (config as { rope_traditional?: boolean }).rope_traditional) return {};
      const { heads, kvHeads } = headsOf(config as Parameters<typeof headsOf>[0]);
      return { q_proj: heads, k_proj: kvHeads };
    },
    read: (file) => ({ ...readCommon(file), ...own.read?.(file) }),
    write(config, source) {
      const parsed = parseArgs(Settings, config, source);
      const { heads, kvHeads, headDim } = headsOf(parsed);
      const { base, scaling } = ropeOptions(parsed, { base: own.ropeBase ?? 10_000 });
      const stretching = own.stretches === false ? null : (scaling ?? null);
      const { fields: stretched, ropeFactors } = writeScaling(stretching, headDim, base);
      if (!own.hasWindows && slides(parsed)) noPlace('"layer_types" with sliding_attention');
      const { num_local_experts: experts, num_experts_per_tok: used } = parsed;
      const fields: Record<string, GgufField> = {
        context_length: ["uint32", parsed.max_position_embeddings],
        embedding_length: ["uint32", parsed.hidden_size],
        block_count: ["uint32", parsed.num_hidden_layers],
        feed_forward_length: ["uint32", parsed.intermediate_size],
        "rope.dimension_count": ["uint32", headDim],
        "attention.head_count": ["uint32", heads],
        "attention.head_count_kv": ["uint32", kvHeads],
        "attention.key_length": ["uint32", headDim],
        "attention.value_length": ["uint32", headDim],
        "attention.layer_norm_rms_epsilon": ["float32", parsed.rms_norm_eps],
        "rope.freq_base": ["float32", base],
        ...(experts ? { expert_count: ["uint32", experts] } : {}),
        ...(used ? { expert_used_count: ["uint32", used] } : {}),
        ...stretched,
        ...own.write?.({ ...parsed, headDim }),
      };
      return { fields, ropeFactors };
    },
  };
}

const slides = (settings: z.infer<typeof Settings>) =>
  Array.from({ length: settings.num_hidden_layers }, (_, index) => layerType(settings, index)).includes(
    "sliding_attention",
  );

function readCommon(file: GgufDescription): Record<string, unknown> {
  const width = file.need("embedding_length");
  const heads = file.need("attention.head_count");
  const headDim = file.number("attention.key_length") ?? width / heads;
  const turning = file.number("rope.dimension_count") ?? headDim;
  if (turning !== headDim) file.wrong(`${turning} of the ${headDim} features of a head turn; mlxlm needs all to`);
  const embedding = file.shape("token_embd.weight") ?? file.wrong("there is no token_embd.weight");
  const experts = file.number("expert_count") ?? 0;
  return {
    hidden_size: width,
    num_hidden_layers: file.need("block_count"),
    intermediate_size: file.need("feed_forward_length"),
    num_attention_heads: heads,
    num_key_value_heads: file.number("attention.head_count_kv") ?? heads,
    head_dim: headDim,
    rms_norm_eps: precise(file.need("attention.layer_norm_rms_epsilon")),
    vocab_size: embedding[0],
    max_position_embeddings: file.need("context_length"),
    rope_theta: precise(file.number("rope.freq_base") ?? 10_000),
    rope_scaling: readScaling(file),
    tie_word_embeddings: file.shape("output.weight") === undefined,
    attention_bias: file.shape("blk.0.attn_q.bias") !== undefined,
    mlp_bias: file.shape("blk.0.ffn_down.bias") !== undefined,
    ...(experts > 0 ? { num_local_experts: experts, num_experts_per_tok: file.need("expert_used_count") } : {}),
  };
}

/** The number that was meant by a float32: 1e-5, not 9.999999747378752e-6. */
export const precise = (value: number): number => Number(Math.fround(value).toPrecision(7));
