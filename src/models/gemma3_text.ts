/**
 * Gemma 3 (text): Gemma 2 with norms on queries and keys in the place of caps, and five layers of sliding-window
 * attention, with a rotary base of their own, to each layer of full attention.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { Residual, type Weights, ZeroCenteredRMSNorm } from "../nn";
import { AttentionType, checkHeads, checkLayerTypes, maskOf, ropeFields, ropeOptions, size } from "./args";
import { denseAwq } from "./awq-facts";
import { SandwichBlock } from "./gemma2";
import { decoder, precise } from "./gguf/decoder";
import type { GgufFacts } from "./gguf/facts";
import { sandwichLayer, TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { CausalLM } from "./language-model";
import * as llama from "./llama";

export const Args = z
  .object({
    hidden_size: size.default(1152),
    num_hidden_layers: size.default(26),
    intermediate_size: size.default(6912),
    num_attention_heads: size.default(4),
    head_dim: size.default(256),
    rms_norm_eps: z.number().positive().default(1e-6),
    vocab_size: size.default(262_144),
    num_key_value_heads: size.default(1),
    ...ropeFields,
    rope_local_base_freq: z.number().positive().default(10_000),
    query_pre_attn_scalar: z.number().positive().default(256),
    sliding_window: size.default(512),
    layer_types: z.array(AttentionType).nullish(),
    /** Every how many layers one attends to all, where no list says it; the second name is transformers 5's. */
    sliding_window_pattern: size.nullish(),
    _sliding_window_pattern: size.nullish(),
    max_position_embeddings: size.default(32_768),
  })
  .superRefine(checkHeads)
  .superRefine(checkLayerTypes);

type Args = z.infer<typeof Args>;

/** Layers that slide never stretch positions, and have a base of their own, unless the configuration has a set for them. */
function slidingRope({ rope_parameters, rope_local_base_freq: base }: Args) {
  if (!rope_parameters || !("sliding_attention" in rope_parameters)) return { base };
  return ropeOptions({ rope_parameters }, { base, layerType: "sliding_attention" });
}

class Attention extends llama.Attention {
  q_norm: ZeroCenteredRMSNorm;
  k_norm: ZeroCenteredRMSNorm;
  override readonly scale: number;

  constructor(args: Args, type: AttentionType) {
    const dims = args.head_dim;
    const rope =
      type === "sliding_attention"
        ? { dims, ...slidingRope(args) }
        : { dims, ...ropeOptions(args, { base: 1_000_000 }), maxPositions: args.max_position_embeddings };
    super({ ...args, attention_bias: false, rope_traditional: false }, { rope });
    this.q_norm = new ZeroCenteredRMSNorm(dims, args.rms_norm_eps);
    this.k_norm = new ZeroCenteredRMSNorm(dims, args.rms_norm_eps);
    this.scale = args.query_pre_attn_scalar ** -0.5;
  }
}

/** x + y. The sum of float16 residuals outgrows the type, so it is made in float32 and clipped. */
const addResidual = mx.compile(
  (x: Tensor, y: Tensor): Tensor => {
    if (x.dtype !== "float16") return x.add(y);
    const { min, max } = mx.finfo("float16");
    return mx.clip(x.astype("float32").add(y.astype("float32")), min, max).astype("float16");
  },
  { shapeless: true },
);

class Block extends SandwichBlock {
  constructor(args: Args, type: AttentionType) {
    super(new Attention(args, type), args, maskOf(type, args));
  }

  protected override add(x: Residual, delta: Tensor): Residual {
    return new Residual(addResidual(x.value, delta));
  }

  protected override addsPlainly({ dtype }: Residual): boolean {
    return dtype !== "float16";
  }
}

type Pattern = Partial<Pick<Args, "layer_types" | "sliding_window_pattern" | "_sliding_window_pattern">>;

/** Every how many layers one attends to all. */
function patternOf(args: Pattern): number {
  const first = args.layer_types?.indexOf("full_attention") ?? -1;
  if (first >= 0) return first + 1;
  return args.sliding_window_pattern ?? args._sliding_window_pattern ?? 6;
}

function typeOf(args: Pattern, index: number): AttentionType {
  return args.layer_types?.[index] ?? ((index + 1) % patternOf(args) === 0 ? "full_attention" : "sliding_attention");
}

export class Model extends CausalLM {
  constructor(args: Args) {
    const block = (index: number) => new Block(args, typeOf(args, index));
    super({ ...args, tie_word_embeddings: false }, block, {
      norm: (dims, eps) => new ZeroCenteredRMSNorm(dims, eps),
      // Rounded as the model was trained with it.
      embeddingScale: mx.scope(() => mx.array(Math.sqrt(args.hidden_size), "bfloat16").item()),
    });
  }

  /** The checkpoint, not the configuration, says whether the embedding is tied: then it has no head. */
  tieAs(given: ReadonlyMap<string, Tensor>, prefix = ""): void {
    if (!this.lm_head || !given.has(`${prefix}model.embed_tokens.weight`) || given.has(`${prefix}lm_head.weight`))
      return;
    this.lm_head.dispose();
    this.lm_head = undefined;
  }

  override loadWeights(weights: Weights, options?: { strict?: boolean }): this {
    const given = new Map(weights);
    this.tieAs(given);
    return super.loadWeights(given, options);
  }
}

export const awq = denseAwq({ before: "pre_feedforward_layernorm" });

/** Layers of the 27B: the one size whose attention is not scaled by its heads' width. llama.cpp knows it, and takes no other scale. */
const largest = 62;

const attentionScalar = (layers: number | undefined, width: number, heads: number, headDim: number) =>
  layers === largest ? width / heads : headDim;

/** @param prefix what stands before the names of the checkpoint */
export const facts = (prefix?: string): GgufFacts =>
  decoder("gemma3", {
    names: new TensorNames(sandwichLayer, { prefix }),
    normOffset: 1,
    ropeBase: 1_000_000,
    hasWindows: true,
    read(file) {
      const [width, heads] = [file.need("embedding_length"), file.need("attention.head_count")];
      const headDim = file.number("attention.key_length") ?? width / heads;
      return {
        sliding_window: file.need("attention.sliding_window"),
        sliding_window_pattern: file.number("attention.sliding_window_pattern") ?? 6,
        query_pre_attn_scalar: attentionScalar(file.number("block_count"), width, heads, headDim),
        rope_theta: precise(file.number("rope.freq_base") ?? 1_000_000),
        rope_local_base_freq: precise(file.number("rope.freq_base_swa") ?? 10_000),
      };
    },
    write({ headDim, ...settings }) {
      const args = settings as unknown as Args;
      const { query_pre_attn_scalar: scalar, num_hidden_layers: layers } = args;
      const expected = attentionScalar(layers, args.hidden_size, args.num_attention_heads, headDim);
      if (scalar !== expected) noPlace(`"query_pre_attn_scalar" ${scalar} (not ${expected})`);
      const pattern = patternOf(args);
      const types = Array.from({ length: layers }, (_, index) => typeOf(args, index));
      if (types.some((type, index) => type !== typeOf({ sliding_window_pattern: pattern }, index))) {
        noPlace('"layer_types" without a period');
      }
      const { base, scaling } = { scaling: null, ...slidingRope(args) };
      if ((scaling?.factor ?? 1) !== 1) noPlace("a stretched rotation of sliding layers");
      return {
        ...(pattern === 6 ? {} : { "attention.sliding_window_pattern": ["uint32", pattern] as const }),
        "attention.sliding_window": ["uint32", args.sliding_window],
        "rope.freq_base_swa": ["float32", base],
      };
    },
  });

export const gguf = facts();
